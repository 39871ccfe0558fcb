from torch import nn


class Residual(nn.Sequential):
    """Modules in a row whose input is added to what they make."""

    def forward(self, x):
        return x + super().forward(x)


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.stem = nn.Linear(4, width)
        self.net = nn.Sequential(Residual(nn.Linear(width, width), nn.Tanh()), nn.Linear(width, 2))

    def forward(self, x):
        return self.net(self.stem(x))
