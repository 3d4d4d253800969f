"""Batches with labels, and the precision that they are read in."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from indelible.models.batches import padded
from indelible.tuning.objective import NO_LOSS


def collated(rows: Sequence[Mapping[str, Sequence[int]]], pad: int) -> dict[str, Tensor]:
    """``input_ids``, ``attention_mask`` and ``labels`` (unshifted), each of shape (rows, longest row), padded on the
    right. By what has no effect: padded positions are masked, follow everything that bears loss, and bear none."""
    ids, mask = padded([row["input_ids"] for row in rows], pad)
    labels, _ = padded([row["labels"] for row in rows], NO_LOSS)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def usual_precision(device: torch.device) -> str:
    """``bf16-mixed`` where the device computes in bfloat16 itself, else ``fp32``.

    Others emulate it: a product took 7 to 50 times as long as in float32 with AVX2 alone, 3 to 4 times with AVX-512, of
    which oneDNN says that it has bfloat16, so that processors of that kind are asked for its instructions.
    """
    if device.type == "cpu":
        has = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        if torch.cpu._is_avx512_supported():
            has = has and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    else:
        has = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if has else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 autocast for ``bf16-mixed``, nothing for ``fp32``. Weights keep their own type either way."""
    if precision == "bf16-mixed":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
