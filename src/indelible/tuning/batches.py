"""Batches and their loss: right padding, logits only where a label bears loss, the mean taken over those tokens.

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

from indelible.models.trace import evaluation_mode
from indelible.tuning.objectives.objective import NO_LOSS, Features, Row


class Collator:
    """Pads rows on the right to the longest of the batch.

    Args:
        pad: token id to pad with. Its value has no effect: padded positions are masked, follow everything that bears
            loss, and bear none themselves.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and ``labels`` (unshifted), each of shape (rows, longest row)."""
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(column: str, fill: int) -> Tensor:
            return torch.tensor([[*row[column], *[fill] * (longest - len(row[column]))] for row in rows])

        mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
        return {
            "input_ids": padded("input_ids", self.pad),
            "attention_mask": torch.tensor(mask),
            "labels": padded("labels", NO_LOSS),
        }


def as_dicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows in the form that trainers and their samplers expect."""
    return [row.as_dict() for row in rows]


def takes_logits_to_keep(model: nn.Module) -> bool:
    """Whether the model can be asked for logits at chosen positions only."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def at_label_positions(inputs: Mapping[str, Any], restrict: bool) -> dict[str, Any]:
    """The inputs with labels shifted to the positions that predict them and, if the model can, those positions only.

    Args:
        inputs: a Collator's batch.
        restrict: ask for logits at the union of the rows' loss-bearing positions (else at all).

    Returns:
        The same batch with ``labels`` of shape (rows, positions) beside ``logits_to_keep``, the positions' indices.
    """
    labels = functional.pad(inputs["labels"][:, 1:], (0, 1), value=NO_LOSS)
    batch = {**inputs, "labels": labels, "use_cache": False}
    if restrict:
        positions = (labels != NO_LOSS).any(dim=0).nonzero().squeeze(1)
        batch |= {"labels": labels[:, positions], "logits_to_keep": positions}
    return batch


def token_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Cross entropy summed over loss-bearing tokens, divided by their number, in float32.

    Args:
        outputs: the model's, with ``logits`` at the labels' positions.
        labels: shifted labels, shape (rows, positions).
        num_items_in_batch: number of loss-bearing tokens in all batches of the optimizer step; None: in this batch.
    """
    total = functional.cross_entropy(
        outputs["logits"].flatten(0, 1).float(), labels.flatten(), ignore_index=NO_LOSS, reduction="sum"
    )
    count = (labels != NO_LOSS).sum() if num_items_in_batch is None else num_items_in_batch
    return total / count


def usual_precision(device: torch.device) -> str:
    """``bf16-mixed`` where the device computes in bfloat16 itself, else ``fp32``.

    Processors without it emulate it: on two cores of one such (AVX2 alone) a product took 7 to 50 times as long as in
    float32.
    """
    if device.type == "cpu":
        has = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return "bf16-mixed" if has else "fp32"
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 autocast for ``bf16-mixed``, nothing for ``fp32``. Weights keep their own type either way."""
    if precision == "bf16-mixed":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def mean_token_loss(model: nn.Module, rows: Sequence[Features], *, pad: int, batch_size: int, precision: str) -> float:
    """Mean loss over all loss-bearing tokens of the rows, in evaluation mode, batched by length.

    Each module's mode (training or evaluation) is left as it was; no random number is drawn.
    """
    device = next(model.parameters()).device
    collate, restrict = Collator(pad), takes_logits_to_keep(model)
    ordered = sorted(as_dicts(rows), key=lambda row: len(row["input_ids"]))
    total, count = 0.0, 0
    with evaluation_mode(model), torch.no_grad(), autocast(device, precision):
        for start in range(0, len(ordered), batch_size):
            batch = {key: value.to(device) for key, value in collate(ordered[start : start + batch_size]).items()}
            inputs = at_label_positions(batch, restrict)
            labels = inputs.pop("labels")
            total += float(token_loss(model(**inputs), labels, 1))
            count += int((labels != NO_LOSS).sum())
    return total / count


def completion_log_probs(model: nn.Module, answers: Sequence[tuple[Sequence[int], Sequence[int]]], pad: int) -> Tensor:
    """Log-probability of each answer after its prompt, summed over its tokens in float32.

    Args:
        model: in the mode and the precision that are wanted.
        answers: prompts and answers as token ids.
        pad: token id to pad with.
    """
    device = next(model.parameters()).device
    rows = [Features((*prompt, *answer), (NO_LOSS,) * len(prompt) + tuple(answer)) for prompt, answer in answers]
    batch = {key: value.to(device) for key, value in Collator(pad)(as_dicts(rows)).items()}
    inputs = at_label_positions(batch, takes_logits_to_keep(model))
    labels = inputs.pop("labels")
    log_probs = torch.log_softmax(model(**inputs).logits.float(), dim=-1)
    wanted = log_probs.gather(2, labels.clamp_min(0).unsqueeze(2)).squeeze(2)
    totals: Tensor = (wanted * (labels != NO_LOSS)).sum(1)
    return totals
