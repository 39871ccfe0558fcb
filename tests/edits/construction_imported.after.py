import torch
from torch.nn import Linear, Module, Sigmoid


class Net(Module):
    def __init__(self):
        super().__init__()
        self.fc = Linear(4, 4)
        self.act = torch.nn.LeakyReLU()

    def forward(self, x: torch.Tensor):
        return self.act(self.fc(x))
