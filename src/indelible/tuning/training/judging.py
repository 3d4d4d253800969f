"""What a model as it stands makes of held-out rows: the loss of right answers, and the answers that it writes itself.

All of it is taken in evaluation mode and in the run's precision, and leaves random state as it was.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from indelible.models.batches import in_pieces, most_tokens, padded
from indelible.models.trace import evaluation_mode
from indelible.tuning.objective import NO_LOSS, Features, Judge, Run
from indelible.tuning.randomness import seeded
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


def greedy_answers(run: Run[Any], prompts: Sequence[Sequence[int]], tokens: int) -> list[str]:
    """What the model finds most probable after each prompt, token by token."""
    own = dict.fromkeys(("temperature", "top_p", "top_k", "min_p"))
    return _written(run, prompts, tokens, {"do_sample": False, "repetition_penalty": 1.0} | own)


def sampled_answers(
    run: Run[Any], prompts: Sequence[Sequence[int]], tokens: int, sampling: Mapping[str, Any]
) -> list[str]:
    """Answers that are drawn, by arguments of ``generate``, with the same random numbers in each call; those of the run
    go on as if none had been drawn."""
    with seeded(0):
        return _written(run, prompts, tokens, {**sampling, "do_sample": True})


def _written(run: Run[Any], prompts: Sequence[Sequence[int]], tokens: int, how: Mapping[str, Any]) -> list[str]:
    """What the model writes after each prompt, up to the end of text and ``tokens`` at most, prompts of like length
    together. An answer ends where the model has no more positions."""
    model, tokenizer = run.model, run.tokenizer
    answers = [""] * len(prompts)
    generate: Any = model.generate
    ends = _ends(model, tokenizer.eos_token_id)
    ordered = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    with as_judged(run):
        for chosen in in_pieces(ordered, 4 * run.settings.batch_size):
            ids, mask = padded([prompts[number] for number in chosen], run.pad, side="left")
            room = min(tokens, most_tokens(model) - ids.shape[1])
            if room < 1:
                continue
            fixed = {
                "input_ids": ids.to(model.device),
                "attention_mask": mask.to(model.device),
                "max_new_tokens": int(room),
                "num_beams": 1,
                "use_cache": True,
                "pad_token_id": run.pad,
                "eos_token_id": ends or None,
            }
            for number, written in zip(chosen, generate(**{**how, **fixed}), strict=True):
                answer = written[ids.shape[1] :].tolist()
                stop = next((at for at, token in enumerate(answer) if token in ends), len(answer))
                answers[number] = str(tokenizer.decode(answer[:stop], skip_special_tokens=True))
    return answers


def _ends(model: PreTrainedModel, end: int | None) -> list[int]:
    """Tokens that end an answer: the tokenizer's, and those of the model's own generation settings."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = [end, *(own if isinstance(own, list) else [own])]
    return sorted({token for token in ends if token is not None})
