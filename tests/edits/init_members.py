import torch
from torch import nn


class Dense(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.ones(width, width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return torch.sin(x @ self.kernel + self.bias)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.ModuleList([Dense() for _ in range(11)])
        self.head = Dense()

    def forward(self, x):
        for layer in self.body:
            x = layer(x)
        return self.head(x)
