"""A backbone that stays as it is, in evaluation mode, and parameters in bfloat16."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def make_model():
    backbone = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh())
    backbone.requires_grad_(False)
    head = nn.Linear(6, 2)
    return nn.Sequential(backbone, head).to(torch.bfloat16)


def load_data(partition_id, batch_size):
    x = torch.randn(24, 5, generator=torch.Generator().manual_seed(partition_id))
    data = TensorDataset(x.to(torch.bfloat16), (x[:, 0] > 0).long())
    return {
        "train": DataLoader(data, batch_size=batch_size, shuffle=True),
        "val": DataLoader(data, batch_size=24),
    }


def train(net, train_loader, epochs, lr):
    net.train()
    net[0].eval()
    optimizer = torch.optim.SGD((p for p in net.parameters() if p.requires_grad), lr=lr)
    total = 0.0
    for _ in range(epochs):
        for x, y in train_loader:
            loss = nn.functional.cross_entropy(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total


def test(net, val_loader):
    net.eval()
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(net(x), y) for x, y in val_loader]
    return {"loss": torch.stack(losses).mean()}
