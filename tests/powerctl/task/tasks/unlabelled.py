"""No labels at all, and a loss that is negative: how alike two views of a picture are."""

import torch
from torch import nn
from torch.utils.data import DataLoader

target = ("likeness", "max")


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x):
        return nn.functional.normalize(self.layers(x), dim=1)


def load_data(partition_id, batch_size):
    x = torch.randn(30, 10, generator=torch.Generator().manual_seed(partition_id))
    return DataLoader(x, batch_size=batch_size, shuffle=True, drop_last=True)


def train(model, dataloader, epochs, lr):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        for x in dataloader:
            loss = -(model(_view(x)) * model(_view(x))).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def test(model, dataloader):
    with torch.no_grad():
        likeness = [(model(x) * model(_view(x))).sum(1).mean() for x in dataloader]
    return {"likeness": torch.stack(likeness).mean().item()}


def _view(x):
    return x + 0.1 * torch.randn_like(x)
