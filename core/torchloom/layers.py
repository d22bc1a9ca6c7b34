"""Layers that architectures and objectives share."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_FEW_ROWS = 8
"""Vectors up to which a thread of its own for each part of the weight was quicker: measured on two x86-64 cores."""
_LARGE_WEIGHT = 2**16
"""Elements of the weight from which on it was."""


class Linear(nn.Linear):
    """torch's, quicker where a CPU gives a few vectors to a large weight, as each token does that is generated.

    Such a product takes as long as the weight takes to be read from memory. torch's libraries leave that to one thread,
    or to a kernel for many rows; here each thread reads rows of its own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``, contiguous."""
        few = 0 < input.numel() <= _FEW_ROWS * self.in_features
        parts = self._parts(input) if few else 1
        if parts == 1:
            return super().forward(input)
        columns = input.reshape(-1, self.in_features).T
        output = torch.bmm(self.weight.view(parts, -1, self.in_features), columns.expand(parts, -1, -1))
        if columns.shape[1] > 1:
            output = output.flatten(0, 1).T.contiguous()
        output = output.view(*input.shape[:-1], self.out_features)
        return output if self.bias is None else output + self.bias

    def _parts(self, input: Tensor) -> int:
        """Return how many threads share out the weight: 1 if it is no ordinary one, or a gradient is asked for."""
        weight = self.weight
        if (
            torch.is_grad_enabled()
            or weight.numel() < _LARGE_WEIGHT
            or type(weight) is not nn.Parameter
            or type(input) is not Tensor
            or not (weight.dtype == input.dtype == torch.float32)
            or weight.device.type != "cpu"
            or not weight.is_contiguous()
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
        ):
            return 1
        return math.gcd(self.out_features, torch.get_num_threads())
