"""Batches with labels and their loss: logits only where a label bears loss, the mean taken over those tokens.

Computing logits is a large part of a small model's cost (the vocabulary is wide), and with loss on answers only most
positions need none. A batch therefore asks the model for the union of its rows' loss-bearing positions.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from indelible.models.batches import padded
from indelible.tuning.objective import NO_LOSS


def collated(rows: Sequence[Mapping[str, Sequence[int]]], pad: int) -> dict[str, Tensor]:
    """``input_ids``, ``attention_mask`` and ``labels`` (unshifted), each of shape (rows, longest row), padded on the
    right. By what has no effect: padded positions are masked, follow everything that bears loss, and bear none."""
    ids, mask = padded([row["input_ids"] for row in rows], pad)
    labels, _ = padded([row["labels"] for row in rows], NO_LOSS)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def at_labels(batch: Mapping[str, Any], model: nn.Module) -> dict[str, Any]:
    """A collated batch with ``labels`` shifted to the positions that predict them and, if the model can be asked for
    logits at chosen positions, at the union of the rows' loss-bearing ones alone (``logits_to_keep``)."""
    labels = functional.pad(batch["labels"][:, 1:], (0, 1), value=NO_LOSS)
    found = {**batch, "labels": labels, "use_cache": False}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        positions = (labels != NO_LOSS).any(dim=0).nonzero().squeeze(1)
        found |= {"labels": labels[:, positions], "logits_to_keep": positions}
    return found


def token_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross entropy summed over loss-bearing tokens, in float32, divided by their number: in all batches of the
    optimizer step, or without it in this batch. Labels ``(rows, positions)`` are shifted, logits at their positions."""
    total = functional.cross_entropy(
        outputs["logits"].flatten(0, 1).float(), labels.flatten(), ignore_index=NO_LOSS, reduction="sum"
    )
    count = (labels != NO_LOSS).sum() if num_items_in_batch is None else num_items_in_batch
    return total / count


def usual_precision(device: torch.device) -> str:
    """``bf16-mixed`` where the device computes in bfloat16 itself, else ``fp32``.

    Others emulate it: on two cores with AVX2 alone a product took 7 to 50 times as long as in float32.
    """
    if device.type == "cpu":
        has = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    else:
        has = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if has else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 autocast for ``bf16-mixed``, nothing for ``fp32``. Weights keep their own type either way."""
    if precision == "bf16-mixed":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()
