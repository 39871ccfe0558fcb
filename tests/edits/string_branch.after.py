from torch import nn


def make(name):
    if name == "relu":
        return nn.ReLU()
    elif name == "sigmoid":
        return nn.Sigmoid()
    raise ValueError(name)


class Net(nn.Module):
    def __init__(self, act='relu'):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), make(act))

    def forward(self, x):
        return self.net(x)
