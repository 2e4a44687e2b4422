"""Sentences, each praise or blame: lines of `1<TAB>text`; without dataset-path, made ones."""

import random
import zlib
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset, random_split

WORDS = 1000  # numbers that words are hashed to; 0 is no word
LONGEST = 16  # words of a sentence


def make_model():
    return nn.Sequential(nn.EmbeddingBag(WORDS, 16, padding_idx=0), nn.Linear(16, 2))


def load_data(partition_id, num_partitions, dataset_path=""):
    lines = Path(dataset_path).read_text().splitlines() if dataset_path else sentences(256)
    own = lines[partition_id::num_partitions]  # a node that has its own sentences takes all
    labels, texts = zip(*(line.split("\t", 1) for line in own), strict=True)
    words = torch.stack([numbers(text) for text in texts])
    data = TensorDataset(words, torch.tensor([int(label) for label in labels]))
    return tuple(random_split(data, [0.75, 0.25]))


def numbers(text):
    words = [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in text.lower().split()[:LONGEST]]
    return torch.tensor(words + [0] * (LONGEST - len(words)))


def sentences(n):
    """One word of the other side in each."""
    draw, sides = random.Random(0), [["dull", "weak", "bad"], ["fresh", "bright", "good"]]
    labels = [draw.randrange(2) for _ in range(n)]
    words = [draw.sample(sides[i], 2) + draw.sample(sides[1 - i], 1) for i in labels]
    return [f"{i}\tThe film was {' and '.join(w)}" for i, w in zip(labels, words, strict=True)]


def train_step(model, batch, optimizer):
    words, labels = batch
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(words), labels)
    loss.backward()
    optimizer.step()
    return loss


def test(model, testloader):
    with torch.no_grad():
        right = [(model(words).argmax(1) == labels).float() for words, labels in testloader]
    return {"accuracy": torch.cat(right).mean().item()}
