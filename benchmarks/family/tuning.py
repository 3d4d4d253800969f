"""Tuning in one family: the loss of the first step, what is frozen, what comes out, and what GRPO scores.

Rows are read one by one in the judge, without padding; the trainers read them padded and in batches.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from family.plain import EXACT, Off, as_it_stands, differences, greedy, log_probs, mean_loss, near
from indelible.tuning.objective import OBJECTIVES, tuning_settings
from indelible.tuning.own_data.data import data_task
from indelible.tuning.rows import draw_rows
from indelible.tuning.task import TASKS, Example, Task
from indelible.tuning.train import fine_tune

SHARED = {"batch_size": 4, "warmup_steps": 0, "precision": "fp32", "heldout_examples": 3, "weight_decay": 0.0}
PROBLEMS = (
    "What is 12 + 7?",
    "Is it true that in Brazil people speak Portuguese and that the fox is brown?",
    "Au is",
    "A",
)
WORDS = [
    "the",
    "a",
    "fox",
    "dog",
    "city",
    "capital",
    "rains",
    "north",
    "gold",
    "Peru",
    "Japan",
    "Lima",
    "quick",
    "over",
    "in",
    "of",
    "while",
    "it",
    "is",
]


def full(model: Any, tokenizer: Any) -> str:
    return _tuned(model, tokenizer, {"tuner": "full", "learning_rate": 3e-3, "steps": 4})


def lora(model: Any, tokenizer: Any) -> str:
    return _tuned(model, tokenizer, {"tuner": "lora", "learning_rate": 2e-2, "steps": 5, "rank": 4, "alpha": 8})


def _texts() -> list[str]:
    drawn = random.Random(0)
    return [" ".join(drawn.choices(WORDS, k=8 + 2 * number)) for number in range(8)]


def _tuned(model: Any, tokenizer: Any, options: dict[str, Any]) -> str:
    """Four rows at each step, so that the first step's loss is that of these rows."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in _texts()))
        given = {"objective": "text", "data": {"source": str(file)}, "train_examples": 4, **SHARED, **options}
        settings = tuning_settings(given)
        objective = OBJECTIVES.get("text")
        rows = draw_rows(data_task(settings.data, objective), objective, tokenizer, settings, facts=(), seed=0)
        train, heldout = ([row.input_ids for row in part] for part in (rows.train, rows.heldout))
        frozen = _frozen(model)
        before = as_it_stands(model)
        with torch.no_grad():
            first, held = mean_loss(model, train), mean_loss(model, heldout)
        result = fine_tune(model, tokenizer, settings, frozen=frozen)
    near(result.before["loss"], held, "held-out loss")
    near(result.log[0]["loss"], first, "loss of the first step")
    with torch.no_grad():
        near(result.after["loss"], mean_loss(model, heldout), "held-out loss afterwards")
        last = mean_loss(model, train)
    if not last < first:
        raise Off(f"the loss goes from {first:.3f} to {last:.3f}")
    after = as_it_stands(model)
    changed = differences(before, after)
    beside = [one for one in changed if not one.startswith("weights: ")]
    if beside:
        raise Off(f"beside weights there changed {', '.join(beside[:3])}")
    moved = {one.removeprefix("weights: ") for one in changed}
    if kept := sorted(moved & frozen):
        raise Off(f"frozen, and changed: {', '.join(kept[:3])}")
    return f"{first:.2f} → {last:.2f}"


def _frozen(model: Any) -> set[str]:
    """Every fourth parameter, whatever it is."""
    return {name for name, _ in list(model.named_parameters())[1::4]}


@dataclass
class _Scored:
    """What GRPO's trainer read and scored, as its own method was given it and returned it."""

    rows: list[tuple[list[int], list[int], list[float]]] = field(default_factory=list)


_SAID: dict[str, set[str]] = {}
"""What was answered to each problem in the run under way."""


def _problems(_seed: int) -> Iterator[Example]:
    for prompt in PROBLEMS:
        yield Example(prompt, "x", score=lambda text, prompt=prompt: _SAID[prompt].add(text) or float(len(text) % 2))


def grpo(model: Any, tokenizer: Any) -> str:
    _SAID.update({prompt: set() for prompt in PROBLEMS})
    settings = {
        **SHARED, "objective": "reward", "task": "families", "steps": 1, "learning_rate": 1e-9, "generations": 2,
        "answer_tokens": 5, "heldout_examples": 2, "train_examples": 2,
    }  # fmt: skip
    before = as_it_stands(model)
    with torch.no_grad():
        wanted = {prompt: _greedy_text(model, tokenizer, prompt) for prompt in PROBLEMS}
    TASKS.register("families")(Task(_problems))
    try:
        with _scoring() as scored:
            fine_tune(model, tokenizer, settings)
    finally:
        del TASKS._entries["families"]
    beside = [one for one in differences(before, as_it_stands(model)) if not one.startswith("weights: ")]
    if beside:
        raise Off(f"beside weights there changed {', '.join(beside[:3])}")
    if not scored.rows:
        raise Off("nothing was scored")
    for prompt, answer, found in scored.rows:
        with torch.no_grad():
            expected = log_probs(model, prompt, answer)
        off = float((torch.tensor(found).double() - expected).abs().max())
        if off > EXACT:
            raise Off(f"an answer after {len(prompt)} tokens is scored {off:.3f} nats off")
    missed = [prompt for prompt, texts in _SAID.items() if texts and wanted[prompt] not in (None, *texts)]
    if len(missed) > 2:  # the two that are trained on are not answered greedily
        raise Off(f"the greedy answer {wanted[missed[0]]!r} was never given to {missed[0]!r}")
    return f"{len(scored.rows)} answers"


def _greedy_text(model: Any, tokenizer: Any, prompt: str) -> str | None:
    asked = tokenizer(prompt)["input_ids"]
    tokens, sure = greedy(model, asked, 5)
    if sure < 5:
        return None
    forced = model.generation_config.forced_eos_token_id
    if forced is not None:  # what `generate` writes at the limit of length, whatever the model says
        tokens[-1] = forced
    ended = tokens[: tokens.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in tokens else tokens
    return str(tokenizer.decode(ended, skip_special_tokens=True))


@contextmanager
def _scoring() -> Iterator[_Scored]:
    """See what trl's trainer scores while it trains."""
    from trl import GRPOTrainer

    name = "_get_per_token_logps_and_entropies"
    own, scored = getattr(GRPOTrainer, name), _Scored()

    def seen(
        self: Any, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *more: Any, **given: Any
    ) -> Any:
        found = own(self, model, input_ids, attention_mask, logits_to_keep, *more, **given)
        for ids, mask, values in zip(input_ids, attention_mask, found[0], strict=True):
            answered = mask[-logits_to_keep:].bool()
            prompt = ids[:-logits_to_keep][mask[:-logits_to_keep].bool()].tolist()
            scored.rows.append((prompt, ids[-logits_to_keep:][answered].tolist(), values[answered].tolist()))
        return found

    setattr(GRPOTrainer, name, seen)
    try:
        yield scored
    finally:
        setattr(GRPOTrainer, name, own)
