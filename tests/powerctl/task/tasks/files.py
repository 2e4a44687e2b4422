"""Files on disc, read and augmented by the workers of a DataLoader that stay between epochs."""

import random
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Files(Dataset):
    def __init__(self, folder):
        self.paths = sorted(Path(folder).glob("*.npy"))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        x = np.load(self.paths[index])
        x = x + np.random.normal(0, 0.1, x.shape)  # augmentation, with every generator there is
        x = np.roll(x, random.randrange(3)) * float(torch.rand(()))
        return x.astype(np.float32), int(self.paths[index].stem.split("-")[1])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(9, 2)

    def forward(self, x):
        return self.fc(x)


def load_data_from_disk(path, batch_size):
    data = Files(path)
    return (
        DataLoader(data, batch_size, shuffle=True, num_workers=2, persistent_workers=True),
        DataLoader(data, batch_size),
    )


def train(net, trainloader, epochs, learning_rate):
    optimizer = torch.optim.SGD(net.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for x, y in trainloader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()


def test(net, testloader):
    with torch.no_grad():
        hits = [(net(x).argmax(1) == y).float().mean().item() for x, y in testloader]
        return {"accuracy": np.mean(hits)}
