"""Never finishes being built."""

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        while True:
            pass
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)
