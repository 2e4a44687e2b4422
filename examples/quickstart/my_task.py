"""A task as Flower's quickstart has it: model, data, training and test; nothing of wattfed."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SIZES = {"small": 8, "large": 64}


class Net(nn.Module):
    def __init__(self, model_name="large"):
        super().__init__()
        self.hidden = nn.Linear(4, SIZES[model_name])
        self.out = nn.Linear(SIZES[model_name], 2)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x)))


def load_data(partition_id, num_partitions, batch_size, dataset_path=""):
    """What is in the file, or as many samples as there are without one; a quarter validates."""
    if dataset_path:
        inputs, labels = torch.load(dataset_path)
    else:
        inputs = torch.rand(32, 4, generator=torch.Generator().manual_seed(partition_id))
        labels = (inputs.sum(1) > 2).long()
    data, n = TensorDataset(inputs, labels), len(labels) // 4
    train, test = torch.utils.data.random_split(data, [len(data) - n, n])
    return (
        DataLoader(train, batch_size=batch_size, shuffle=True),
        DataLoader(test, batch_size=2),
    )


def train(net, trainloader, epochs, lr, device):
    net.to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    for _ in range(epochs):
        for inputs, labels in trainloader:
            optimizer.zero_grad()
            criterion(net(inputs.to(device)), labels.to(device)).backward()
            optimizer.step()


def test(net, testloader, device):
    net.to(device)
    net.eval()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for inputs, labels in testloader:
            outputs = net(inputs.to(device))
            loss += nn.functional.cross_entropy(outputs, labels.to(device)).item()
            correct += (outputs.argmax(1) == labels.to(device)).sum().item()
    return {"loss": loss / len(testloader), "accuracy": correct / len(testloader.dataset)}
