from collections import OrderedDict

from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        rows = [("inp", nn.Linear(4, 8)), ("a", nn.Linear(8, 8)), ("act", nn.Tanh())]
        self.body = nn.Sequential(OrderedDict([*rows, ("head", nn.Linear(8, 2))]))

    def forward(self, x):
        return self.body(x)
