"""The published networks that torchvision has not: a language model of LSTMs, and BERT."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Lstm(nn.Module):
    """A language model: embedding, LSTM layers, and a decoder that shares the embedding's weights.

    The defaults are WikiText-2's, as Pagoda and PowerTrain run it; 8.6 million parameters.

    Parameters
    ----------
    vocabulary, width, layers : int
        Words, size of embeddings and of hidden states, and LSTM layers.
    """

    def __init__(self, vocabulary: int = 29_423, width: int = 256, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.decoder = nn.Linear(width, vocabulary, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the next word, shape (batch, length, vocabulary), of (batch, length) tokens."""
        states, _ = self.lstm(self.embedding(tokens))
        return self.decoder(states)  # type: ignore[no-any-return]


class BertSize(NamedTuple):
    """How large a BERT is."""

    layers: int
    width: int
    heads: int


BERT_BASE = BertSize(layers=12, width=768, heads=12)
BERT_LARGE = BertSize(layers=24, width=1024, heads=16)


class Bert(nn.Module):
    """BERT's encoder and pooler (Devlin et al., NAACL 2019), without a head for a task."""

    def __init__(self, size: BertSize, vocabulary: int = 30_522, positions: int = 512) -> None:
        super().__init__()
        layers, width, heads = size
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(positions, width)
        self.segments = nn.Embedding(2, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.1)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.pooler = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """States, shape (batch, length, width), and the pooled first, of (batch, length) tokens."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        segments = torch.zeros_like(tokens)
        x = self.words(tokens) + self.positions(places) + self.segments(segments)
        states = self.encoder(self.dropout(self.norm(x)))
        return states, torch.tanh(self.pooler(states[:, 0]))
