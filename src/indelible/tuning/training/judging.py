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
from indelible.tuning.objective import Features, Judge, Run
from indelible.tuning.training.batches import collated, computing
from indelible.tuning.training.scoring import Scored, scored


@contextmanager
def as_judged(run: Run[Any]) -> Iterator[None]:
    """Evaluation mode, no gradients and the run's precision inside the block; modes are then as they were."""
    with evaluation_mode(run.model), torch.no_grad(), computing(run):
        yield


def loss_judge(run: Run[Any]) -> Judge:
    """``loss``, the mean over loss-bearing tokens, and ``perplexity``, its exponential."""

    def judge(names: Collection[str]) -> dict[str, float]:
        loss = token_loss(run, run.heldout)
        figures = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        return {name: figures[name] for name in names}

    return judge


def token_loss(run: Run[Any], rows: Sequence[Features]) -> float:
    """Mean loss over all loss-bearing tokens of the rows; those of each row are left in ``run.losses``."""
    losses = [(0.0, 0)] * len(rows)
    with as_judged(run):
        for chosen, found in _read(run, rows):
            sums, counts = found.log_probs.sum(1).tolist(), found.label_mask.sum(1).tolist()
            for place, log_prob, tokens in zip(chosen, sums, counts, strict=True):
                losses[place] = -log_prob, tokens
    run.losses[:] = losses
    return sum(loss for loss, _ in losses) / sum(tokens for _, tokens in losses)


def log_probs(run: Run[Any], answers: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Tensor:
    """Log-probability of each answer after its prompt (both as token ids), summed over its tokens in float32, on the
    CPU."""
    rows = [Features.answering(prompt, answer) for prompt, answer in answers]
    sums = torch.empty(len(rows))
    with as_judged(run):
        for chosen, found in _read(run, rows):
            sums[chosen] = found.log_probs.sum(1).cpu()
    return sums


def _read(run: Run[Any], rows: Sequence[Features]) -> Iterator[tuple[Sequence[int], Scored]]:
    """Rows of like length together: their numbers, and what the model makes of their labels."""
    ordered = sorted(range(len(rows)), key=lambda number: len(rows[number].input_ids))
    for chosen in in_pieces(ordered, 2 * run.settings.batch_size):
        batch = collated([rows[number].as_dict() for number in chosen], run.pad)
        inputs = {name: tensor.to(run.model.device) for name, tensor in batch.items()}
        labels = inputs.pop("labels")
        yield chosen, scored(run.model, run.model, inputs, labels, whole=run.whole)
