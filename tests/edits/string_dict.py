from torch import nn

ACTS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}


class Net(nn.Module):
    def __init__(self, width=4, activation="sigmoid"):
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.act = ACTS[activation]()

    def forward(self, x):
        return self.act(self.fc(x))
