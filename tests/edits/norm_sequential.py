from torch import nn


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, width),  # first
            nn.Tanh(),
            nn.Linear(in_features=width, out_features=2 * width), nn.Tanh(),
        )

    def forward(self, x):
        return self.net(x)
