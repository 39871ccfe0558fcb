"""The network every textbook draws: four sigmoid layers, and a first layer that hardly learns."""

from torch import nn


class TextbookNet(nn.Module):
    def __init__(self, n_in=64, width=32, n_out=10):
        super().__init__()
        self.layer1 = nn.Linear(n_in, width)
        self.layer2 = nn.Linear(width, width)
        self.layer3 = nn.Linear(width, width)
        self.layer4 = nn.Linear(width, width)
        self.out = nn.Linear(width, n_out)
        self.sigma = nn.Sigmoid()

    def forward(self, x):
        a1 = self.sigma(self.layer1(x))
        a2 = self.sigma(self.layer2(a1))
        a3 = self.sigma(self.layer3(a2))
        a4 = self.sigma(self.layer4(a3))
        return self.out(a4)
