"""Eight convolutions with sigmoids between them."""

from torch import nn


def block(cin, cout, pool):
    layers = [nn.Conv2d(cin, cout, 3, padding=1), nn.Sigmoid()]
    return layers + [nn.AvgPool2d(2)] if pool else layers


class Recogniser(nn.Module):
    def __init__(self, widths=(8, 8, 16, 16, 16, 16, 32, 32), classes=6):
        super().__init__()
        layers = []
        for i, (cin, cout) in enumerate(zip((1, *widths), widths)):
            layers += block(cin, cout, pool=i in (1, 3))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, picture):
        return self.head(self.body(picture).mean((2, 3)))
