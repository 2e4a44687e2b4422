"""Two real networks to train, as a task of one's own: ResNet-18 on photos, a small BERT on text.

Which network and of what size are settings of the task. The data is random: only its shape costs
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from powerctl.pagoda.models import torchvision_model
from powerctl.pagoda.networks import Bert, BertSize

try:
    from transformers import BertConfig, BertForMaskedLM
except ImportError:  # it is not there, or does not go with the torch or torchvision that is
    BertForMaskedLM = None

NETWORKS = ("resnet18", "bert")
_MINIBATCHES = 8
_CLASSES = 1000


class Size(NamedTuple):
    """How large everything is."""

    side: int
    photos: int  # of a minibatch
    bert: BertSize
    vocabulary: int
    tokens: int
    texts: int  # of a minibatch


# BERT-Small (Turc et al., 2019); the rehearsal is of what a CPU can do in a tenth of a second
SIZES = {
    "full": Size(224, 32, BertSize(layers=4, width=512, heads=8), 30_522, 128, 32),
    "rehearsal": Size(32, 4, BertSize(layers=2, width=64, heads=2), 1000, 32, 4),
}


class Photos(nn.Module):
    """ResNet-18 on photos as cameras have them: bytes, made numbers where the model is."""

    def __init__(self) -> None:
        super().__init__()
        self.network = torchvision_model("resnet18")()

    def forward(self, photos: Tensor) -> Tensor:
        """Scores of the classes."""
        scores: Tensor = self.network(photos.float() / 255)
        return scores


class Text(nn.Module):
    """BERT with the scores of every word: of `transformers` where that is, else our own."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        if BertForMaskedLM is None:
            self.network: Any = Bert(size.bert, size.vocabulary, size.tokens)
            return
        layers, width, heads = size.bert
        config = BertConfig(
            vocab_size=size.vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=size.tokens,
        )
        self.network = BertForMaskedLM(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the words at every place."""
        scores: Tensor
        if BertForMaskedLM is not None:
            scores = self.network(tokens).logits
        else:
            states, _ = self.network(tokens)
            scores = states @ self.network.words.weight.T
        return scores


def origin(kind: str) -> str:
    """Where a network is from."""
    if kind == "resnet18":
        return f"torchvision {version('torchvision')}"
    if BertForMaskedLM is not None:
        return f"transformers {version('transformers')}"
    return "powerctl.pagoda.networks"


def make_model(kind: str, size: str) -> nn.Module:
    """The network, untrained."""
    return Photos() if kind == "resnet18" else Text(SIZES[size])


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, as transformers are trained; ResNet-18 costs no less with it."""
    return torch.optim.AdamW(model.parameters(), lr=1e-4)


def num_examples(kind: str, size: str) -> int:
    """Examples of the client."""
    chosen = SIZES[size]
    return _MINIBATCHES * (chosen.photos if kind == "resnet18" else chosen.texts)


def load_data(kind: str, size: str) -> DataLoader[Any]:
    """A few minibatches: photos with their class, or texts whose words are to be given back."""
    chosen, n = SIZES[size], num_examples(kind, size)
    if kind == "resnet18":
        photos = torch.randint(256, (n, 3, chosen.side, chosen.side), dtype=torch.uint8)
        data = TensorDataset(photos, torch.randint(_CLASSES, (n,)))
        return DataLoader(data, chosen.photos)
    tokens = torch.randint(chosen.vocabulary, (n, chosen.tokens))
    return DataLoader(TensorDataset(tokens, tokens), chosen.texts)


def train_step(
    model: nn.Module,
    batch: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> Tensor:
    """One minibatch."""
    optimizer.zero_grad()
    loss = loss_of(model, batch, device)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss


def test(model: nn.Module, testloader: DataLoader[Any], device: torch.device) -> dict[str, float]:
    """The mean loss, which is no concern of the benchmark; but a task has to have a test."""
    model.eval()
    with torch.inference_mode():
        losses = [loss_of(model, batch, device).item() for batch in testloader]
    return {"loss": sum(losses) / len(losses)}


def loss_of(model: nn.Module, batch: Sequence[Tensor], device: torch.device) -> Tensor:
    """Cross-entropy of a minibatch: over photos, or over the places of all texts."""
    x, y = (part.to(device) for part in batch)
    return nn.functional.cross_entropy(model(x).flatten(0, -2), y.flatten())
