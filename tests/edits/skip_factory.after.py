from torch import nn


class Residual(nn.Sequential):
    """Modules in a row whose input is added to what they make, where that has its shape."""

    def forward(self, x):
        y = super().forward(x)
        return x + y if x.shape == y.shape else y


def block(n_in, n_out):
    return Residual(nn.Linear(n_in, n_out), nn.Tanh())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(block(4, 8), block(8, 8))

    def forward(self, x):
        return self.net(x)
