from torch import nn


class Residual(nn.Sequential):
    """Modules in a row whose input is added to what they make."""

    def forward(self, x):
        return x + super().forward(x)


class Net(nn.Module):
    def __init__(self, depth=3):
        super().__init__()
        self.net = nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(4, 4), nn.ReLU())], nn.Linear(4, 2))
        for layer in self.net[::2]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for i in range(0, len(self.net) - 1, 2):
            self.net[i] = nn.Sequential(self.net[i], nn.BatchNorm1d(self.net[i].out_features))
        members = list(self.net)
        self.net = nn.Sequential(*(Residual(*members[i : i + 2]) for i in range(0, len(members) - 1, 2)), *members[-1:])

    def forward(self, x):
        return self.net(x)  # a row
