from torch import nn


class Net(nn.Module):
    def __init__(self, width=4, depth=3):
        super().__init__()
        rows = []
        for _ in range(depth):
            rows.append(nn.Linear(width, width))
            rows.append(nn.Tanh())
        self.net = nn.Sequential(*rows)

    def forward(self, x):
        return self.net(x)
