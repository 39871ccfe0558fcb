from torch import nn


class Residual(nn.Sequential):
    """Modules in a row whose input is added to what they make."""

    def forward(self, x):
        return x + super().forward(x)


class Net(nn.Module):
    def __init__(self, width=4, depth=3):
        super().__init__()
        rows = []
        for _ in range(depth):
            rows.append(Residual(nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()))
        self.net = nn.Sequential(*rows)

    def forward(self, x):
        return self.net(x)
