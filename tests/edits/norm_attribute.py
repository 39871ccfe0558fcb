from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)  # attribute
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.conv(x).tanh().mean((2, 3)))


SHAPE = (3, 8, 8)
