"""Trains on a data set that it downloads, on a GPU, when it is imported."""

import torch
import torchvision

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)


train = torchvision.datasets.MNIST("data", train=True, download=True)
loader = torch.utils.data.DataLoader(train, batch_size=64, shuffle=True)
model = Net().cuda()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
criterion = nn.CrossEntropyLoss()
for epoch in range(1000):
    for images, labels in loader:
        optimizer.zero_grad()
        criterion(model(images.cuda()), labels.cuda()).backward()
        optimizer.step()
torch.save(model.state_dict(), "model.pt")
