"""A language model of an LSTM with tied embeddings; its minibatches are in a list."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, hidden_size):
        super().__init__()
        self.embedding = nn.Embedding(20, hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, batch_first=True)
        self.out = nn.Linear(hidden_size, 20, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens):
        return self.out(self.lstm(self.embedding(tokens))[0])


def load_data(partition_id, batch_size, sequence_length=12):
    source = torch.Generator().manual_seed(partition_id)
    starts = torch.randint(20, (24, 1), generator=source)
    texts = (starts + torch.arange(sequence_length)) % 20
    return list(texts.split(batch_size))


def train(net, trainloader, epochs, lr):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for _ in range(epochs):
        for tokens in trainloader:
            loss = _loss(net, tokens)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
    return {"train_loss": loss.item(), "tokens": tokens.numel()}


def test(net, loader):
    with torch.no_grad():
        perplexity = torch.stack([_loss(net, t).exp() for t in loader]).mean()
        return {"perplexity": perplexity.cpu().numpy()}


def _loss(net, tokens):
    return nn.functional.cross_entropy(net(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


target = ("perplexity", "min")
