"""Batches with labels, and the precision that they are read in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from indelible.models.batches import padded
from indelible.tuning.objective import NO_LOSS, Run


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


def _exact(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


class _ExactAttention(TorchFunctionMode):
    """Attention in float32 where autocast would have it in bfloat16."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is not functional.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        given, named = tree_map(_exact, (args, kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            found: Tensor = function(*given, **named)
        return found.bfloat16()


@contextlib.contextmanager
def computing(run: Run[Any]) -> Iterator[None]:
    """The run's precision inside the block: bfloat16 autocast for ``bf16-mixed``, nothing for ``fp32``. Weights keep
    their own type either way.

    Attention stays in float32 on a CPU: it is a small part of the operations, and slow there in bfloat16. Not so where
    activations are computed twice, since the second time is no longer inside the block.
    """
    with contextlib.ExitStack() as stack:
        if run.settings.precision == "bf16-mixed":
            stack.enter_context(torch.autocast(run.model.device.type, dtype=torch.bfloat16))
            if run.model.device.type == "cpu" and not run.settings.gradient_checkpointing:
                stack.enter_context(_ExactAttention())
        yield
