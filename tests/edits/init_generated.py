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

    def forward(self, x):
        x = self.conv2(self.conv1(x).relu()).relu()
        return self.head(self.fc1(x.flatten(1)).relu())
