"""A small transformer: batches are dicts, the output has the loss, labels of -100 do not count."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.utils.data import DataLoader

IGNORED = -100


class LanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(8, 16)

    def forward(self, input_ids, labels):
        logits = self.head(self.encoder(self.embedding(input_ids)))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return SimpleNamespace(loss=loss, logits=logits)


def get_model():
    return LanguageModel()


def load_data(partition_id):
    source = torch.Generator().manual_seed(partition_id)
    tokens = torch.randint(1, 16, (12, 6), generator=source)
    masked = torch.rand(tokens.shape, generator=source) < 0.3
    labels = tokens.masked_fill(~masked, IGNORED)
    labels[:4] = IGNORED  # of some minibatches there may be nothing to learn, and a loss of NaN
    rows = [
        {"input_ids": x, "labels": y}
        for x, y in zip(tokens.masked_fill(masked, 0), labels, strict=True)
    ]
    return DataLoader(rows, batch_size=4), DataLoader(rows[4:], batch_size=4)


def train_fn(net, trainloader, epochs, device) -> None:
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    net.train()
    for _ in range(epochs):
        for batch in trainloader:
            batch = {k: v.to(device) for k, v in batch.items()}
            outputs = net(**batch)
            outputs.loss.backward()
            optimizer.step()
            optimizer.zero_grad()


def test_fn(net, testloader):
    net.eval()
    with torch.no_grad():
        loss = sum(net(**batch).loss.item() for batch in testloader)
    return loss / len(testloader.dataset)
