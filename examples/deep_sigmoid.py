"""Twenty sigmoid layers: the gradient loses about a decade a layer and the first ones never learn."""

from torch import nn


class DeepSigmoid(nn.Module):
    def __init__(self, n_in=64, width=64, depth=20, n_classes=10):
        super().__init__()
        layers = []
        for i in range(depth):
            layers.append(nn.Linear(n_in if i == 0 else width, width))
            layers.append(nn.Sigmoid())
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x):
        return self.head(self.hidden(x))
