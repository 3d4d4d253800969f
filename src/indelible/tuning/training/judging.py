"""What a model as it stands makes of held-out rows: the loss and the probability of right answers.

All of it is taken in evaluation mode and in the run's precision, and leaves random state as it was.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from indelible.models.batches import in_pieces
from indelible.models.trace import evaluation_mode
from indelible.tuning.objective import NO_LOSS, Features, Judge, Run
from indelible.tuning.training.batches import at_labels, autocast, collated
from indelible.tuning.training.batches import token_loss as loss_of_batch


@contextmanager
def as_judged(run: Run[Any]) -> Iterator[None]:
    """Evaluation mode, no gradients and the run's precision inside the block; modes are then as they were."""
    with evaluation_mode(run.model), torch.no_grad(), autocast(run.model.device, run.settings.precision):
        yield


def loss_judge(run: Run[Any]) -> Judge:
    """``loss``, the mean over loss-bearing tokens, and ``perplexity``, its exponential."""

    def judge(names: Collection[str]) -> dict[str, float]:
        loss = token_loss(run, run.heldout)
        figures = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        return {name: figures[name] for name in names}

    return judge


def token_loss(run: Run[Any], rows: Sequence[Features]) -> float:
    """Mean loss over all loss-bearing tokens of the rows."""
    total, count = 0.0, 0
    with as_judged(run):
        for _, outputs, labels in _read(run, rows):
            total += float(loss_of_batch(outputs, labels, 1))
            count += int((labels != NO_LOSS).sum())
    return total / count


def log_probs(run: Run[Any], answers: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
    """Log-probability of each answer after its prompt (both as token ids), summed over its tokens in float32, on the
    CPU."""
    rows = [Features.answering(prompt, answer) for prompt, answer in answers]
    found = torch.empty(len(rows))
    with as_judged(run):
        for chosen, outputs, labels in _read(run, rows):
            log_probs_rpv = torch.log_softmax(outputs.logits.float(), dim=-1)
            wanted_rp = log_probs_rpv.gather(2, labels.clamp_min(0).unsqueeze(2)).squeeze(2)
            found[chosen] = (wanted_rp * (labels != NO_LOSS)).sum(1).cpu()
    return found


def _read(run: Run[Any], rows: Sequence[Features]) -> Iterator[tuple[Sequence[int], Any, Tensor]]:
    """Rows of like length together: their numbers, what the model returns at their labels, and the labels."""
    ordered = sorted(range(len(rows)), key=lambda number: len(rows[number].input_ids))
    for chosen in in_pieces(ordered, 2 * run.settings.batch_size):
        batch = collated([rows[number].as_dict() for number in chosen], run.pad)
        inputs = at_labels({name: tensor.to(run.model.device) for name, tensor in batch.items()}, run.model)
        labels = inputs.pop("labels")
        yield chosen, run.model(**inputs), labels
