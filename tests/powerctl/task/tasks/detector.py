"""A detector of torchvision, whose loss comes from the model and whose batches are lists."""

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

target = ("negative_loss", "max")


def make_model():
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU())
    backbone.out_channels = 8
    anchors = AnchorGenerator(sizes=((16, 32),), aspect_ratios=((1.0,),))
    return RetinaNet(backbone, 3, anchor_generator=anchors, min_size=64, max_size=64)


def load_data(partition_id):
    source = torch.Generator().manual_seed(partition_id)
    rows = []
    for label in (1, 2, 1, 2, 1, 2):
        x, y = torch.randint(30, (2,), generator=source).tolist()
        boxes = torch.tensor([[x, y, x + 24, y + 24]], dtype=torch.float32)
        image = torch.rand(3, 64, 64, generator=source)
        rows.append((image, {"boxes": boxes, "labels": torch.tensor([label])}))

    def listed(batch):
        return tuple(zip(*batch, strict=True))

    loader = DataLoader(rows, batch_size=2, shuffle=True, collate_fn=listed)
    return loader, DataLoader(rows, batch_size=2, collate_fn=listed)


def train(model, loader, epochs, device):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    model.train()
    for _ in range(epochs):
        for images, targets in loader:
            losses = model(list(images), list(targets))
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()


@torch.no_grad()
def test(model, loader):
    model.train()  # a detector gives its losses in this mode alone
    losses = [sum(model(list(images), list(t)).values()) for images, t in loader]
    return {"negative_loss": -torch.stack(losses).mean(), "batches": len(losses)}
