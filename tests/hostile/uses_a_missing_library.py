"""Imports what is not installed, and only training needs it."""

import a_library_that_is_not_installed

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)


def train(model):
    a_library_that_is_not_installed.log(model)
