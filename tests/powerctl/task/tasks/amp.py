"""Mixed precision with a GradScaler, accumulation over two minibatches, and a schedule by steps."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def load_data(partition_id, batch_size):
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(partition_id))
    data = TensorDataset(x, (x.sum(1) > 0).long())
    return DataLoader(data, batch_size=batch_size, shuffle=True), DataLoader(data, batch_size=32)


def train(net, trainloader, epochs, lr, device):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=epochs * len(trainloader)
    )
    scaler = torch.amp.GradScaler(device.type)
    for _ in range(epochs):
        for i, (x, y) in enumerate(trainloader):
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(net(x.to(device)), y.to(device)) / 2
            scaler.scale(loss).backward()
            if i % 2:
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                schedule.step()


def test(net, testloader, device):
    with torch.no_grad():
        hits = sum((net(x.to(device)).argmax(1) == y.to(device)).sum() for x, y in testloader)
    return {"acc": hits / len(testloader.dataset)}
