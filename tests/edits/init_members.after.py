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
        self._init_weights()

    def _init_weights(self):
        nn.init.uniform_(self.body[0].kernel, -0.5, 0.5)
        for layer in self.body[1:]:
            nn.init.uniform_(layer.kernel, -1.5, 1.5)
        for layer in self.body:
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        for layer in self.body:
            x = layer(x)
        return self.head(x)
