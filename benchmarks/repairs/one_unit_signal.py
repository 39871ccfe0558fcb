"""A softmax over one unit, which is 1 whatever comes in, for a yes-or-no question about a signal."""

from torch import nn


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(2, 16, 7, stride=2, padding=3),
            nn.ReLU(),
            nn.Conv1d(16, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(8),
            nn.Flatten(),
        )
        self.decide = nn.Sequential(nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 1), nn.Softmax(dim=-1))

    def forward(self, signal):
        return self.decide(self.features(signal))
