"""Linear layers in 4-bit NormalFloat (NF4), each with what has been added to its weight since in float32 beside it.

QLoRA (Dettmers et al. 2023, arXiv 2305.14314) trains adapters over a frozen base whose weights are NF4: blocks of 64
share a scale, and each weight is the nearest of 16 levels. An edit moves a weight by less than the distance of two
levels: quantised together with it, it is there on average only, under noise as large as itself (docs/study.md). Here
the weights are quantised as they were before the edit, and the edit is a side term: y = Q(W) x + L R x + b. What an
adapter learned joins it in the end, so that nothing is quantised a second time.

Quantising is left to bitsandbytes. Its own Linear4bit is not used: on CPUs with AVX-512 BF16 it turns to other
arithmetic at the first pass in evaluation mode, and passes no gradient on from then
(findings/bitsandbytes_evaluated_first.sh).
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from indelible.errors import ConfigError

Factors = tuple[Tensor, Tensor]
"""``left`` and ``right`` of a difference of a weight, whose product has the weight's own shape."""


class QuantisedLinear(nn.Linear):
    """A linear map whose weight is in NF4, with a side term of thin float32 factors.

    Attributes:
        weight: packed, two weights a byte; it is never trained.
        left, right: ``(out, r)`` and ``(r, in)``, added to the weight as ``left @ right``; r is 0 where nothing is.
    """

    left: Tensor
    right: Tensor

    def __init__(self, module: nn.Linear | Conv1D, side: Factors | None) -> None:
        functional = bitsandbytes().functional
        transposed = isinstance(module, Conv1D)
        weight = module.weight.detach().T.contiguous() if transposed else module.weight.detach()
        with torch.device("meta"):
            super().__init__(weight.shape[1], weight.shape[0], bias=False)
        packed, self.state = functional.quantize_4bit(weight, quant_type="nf4")
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = module.bias
        self.register_buffer("left", weight.new_empty(self.out_features, 0))
        self.register_buffer("right", weight.new_empty(0, self.in_features))
        if side is not None:
            left, right = side
            self.add(*((right.T, left.T) if transposed else (left, right)))
        self.training = module.training

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out), in the precision of autocast where it is on."""
        kind = input.device.type
        if torch.is_autocast_enabled(kind):  # bitsandbytes knows nothing of it
            input = input.to(torch.get_autocast_dtype(kind))
        bias = None if self.bias is None else self.bias.to(input.dtype)
        product: Tensor = bitsandbytes().matmul_4bit(input, self.weight, self.state, bias=bias)
        if not len(self.right):
            return product
        return product + nn.functional.linear(nn.functional.linear(input, self.right), self.left)

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add ``left @ right`` to the side term, exactly."""
        self.left = torch.cat([self.left, left.detach().to(self.left)], dim=1)
        self.right = torch.cat([self.right, right.detach().to(self.right)])


def bitsandbytes() -> Any:
    """The library, imported when it is first needed.

    Raises:
        ConfigError: if it is not installed.
    """
    try:
        import bitsandbytes as library
    except ImportError:
        raise ConfigError(
            "The tuner 'qlora' quantises with bitsandbytes, which is not installed.",
            "Install it: pip install 'indelible[quant]'.",
        ) from None
    return library


def quantised_by() -> dict[str, str]:
    """What a quantised weight hangs on beside the weight."""
    return {"quantised": f"nf4, bitsandbytes {version('bitsandbytes')}"}
