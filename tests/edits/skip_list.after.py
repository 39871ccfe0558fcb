from torch import nn


class Residual(nn.Sequential):
    """Modules in a row whose input is added to what they make."""

    def forward(self, x):
        return x + super().forward(x)


class Net(nn.Module):
    def __init__(self, width=4, depth=3):
        super().__init__()
        rows = [nn.Linear(4, width), nn.Tanh()]
        for _ in range(depth):
            rows += [Residual(nn.Linear(width, width), nn.Tanh())]
        self.net = nn.Sequential(*rows)

    def forward(self, x):
        return self.net(x)
