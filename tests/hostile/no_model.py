"""Has no model."""

import torch

x = torch.zeros(3)
