import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))
        self.rnn = nn.LSTM(4, width, batch_first=True)

    def forward(self, x):
        return self.rnn(x[:, None] @ self.weight)[0]
