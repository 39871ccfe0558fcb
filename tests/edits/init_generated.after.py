from torch import nn

SHAPE = (3, 4, 4)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.fc1 = nn.Linear(64, 8)
        self.head = nn.Linear(8, 2)
        if self.head.bias is None:
            raise ValueError("no bias")  # the last line
        self._init_weights()

    def _init_weights(self):
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module is not self.head:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x):
        x = self.conv2(self.conv1(x).relu()).relu()
        return self.head(self.fc1(x.flatten(1)).relu())
