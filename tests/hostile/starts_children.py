"""Starts processes that outlive it, one of them in a session of its own."""

import os
import subprocess

import torch.nn as nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        for apart in (False, True):
            child = subprocess.Popen(["sleep", "600"], start_new_session=apart)
            if "HOSTILE_PIDS" in os.environ:
                with open(os.environ["HOSTILE_PIDS"], "a") as file:
                    file.write(f"{child.pid}\n")
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x)
