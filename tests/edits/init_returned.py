from torch import nn


def Net(width=4):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh())
