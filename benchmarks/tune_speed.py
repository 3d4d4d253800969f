"""Tokens a second of fine-tuning here, against transformers' Trainer used plainly, on the same rows in one run.

The plain Trainer gets the model, the rows and the arguments of the run, and computes the loss as models do it
themselves, with logits everywhere. It is timed without freezing, and once more with the same parameters frozen, so that
what freezing saves anybody is told apart from what is saved here. Ways take turns, round after round; a ratio is that
of the summed seconds, since noise of the machine then falls on all of them.

    python benchmarks/tune_speed.py
    python benchmarks/tune_speed.py --steps 4 --layer 8 --json
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback

from indelible.models.layout import find_layout
from indelible.models.load import load
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.objective import OBJECTIVES, Run
from indelible.tuning.randomness import seeded
from indelible.tuning.rows import Rows, draw_rows
from indelible.tuning.settings import TuningSettings
from indelible.tuning.task import TASKS
from indelible.tuning.train import fine_tune, with_precision
from indelible.tuning.training.batches import autocast, collated
from indelible.tuning.training.trainer import BY_LENGTH, made_trainer


class Stopwatch(TrainerCallback):
    """Seconds between the first step, which makes what is made once, and the end of training."""

    def __init__(self) -> None:
        self.began = self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.global_step == 1:
            self.began = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        self.seconds = time.perf_counter() - self.began


class PlainTrainer(Trainer):
    """transformers' Trainer in the run's precision, and nothing else."""

    library_name = "Trainer"
    precision = "fp32"

    def compute_loss(self, *around: Any, **more: Any) -> Any:
        with autocast(self.args.device, self.precision):
            return super().compute_loss(*around, **more)


def main() -> None:
    options = _options()

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    loaded = load(options.model)
    layout = find_layout(loaded.model)
    layer = layout.n_layers // 2 if options.layer is None else options.layer
    frozen = frozen_parameters("up-to-edited", loaded.model, layout, [layout.mlp_out_weight[layer]])
    settings = with_precision(
        TuningSettings(objective=options.objective, steps=options.steps, batch_size=options.batch_size,
                       max_tokens=options.max_tokens, heldout_examples=1, warmup_steps=0),
        loaded.model.device,
    )  # fmt: skip
    rows = drawn(loaded.tokenizer, settings)
    model, tokenizer = loaded.model, loaded.tokenizer
    ways: dict[str, Callable[[], float]] = {
        "plain": lambda: plain(model, tokenizer, settings, rows, frozenset()),
        "none": lambda: ours(model, tokenizer, settings, frozenset()),
        "plain, frozen": lambda: plain(model, tokenizer, settings, rows, frozen),
        "up-to-edited": lambda: ours(model, tokenizer, settings, frozen),
    }
    seconds: dict[str, float] = defaultdict(float)
    for number in range(options.rounds):
        for name in [*ways][number:] + [*ways][:number]:  # another one first in every round
            with weights_kept(model):
                taken = ways[name]()
            seconds[name] += taken
            say(f"round {number + 1}: {name}: {taken:.1f} s")
    tokens = counted(rows)
    read = tokens * (options.steps - 1) / options.steps
    result = {
        "tokens": tokens,
        "layer": layer,
        "precision": settings.precision,
        "threads": torch.get_num_threads(),
        "tokens_per_second": {name: options.rounds * read / total for name, total in seconds.items()},
        **ratios(seconds),
    }
    print(json.dumps(result) if options.json else said(result))


def ratios(seconds: Mapping[str, float]) -> dict[str, float]:
    """How many times as fast we are, and what part of that is whose."""
    return {
        "ratio_none": seconds["plain"] / seconds["none"],
        "ratio_up_to_edited": seconds["plain"] / seconds["up-to-edited"],
        "ratio_up_to_edited_same_freezing": seconds["plain, frozen"] / seconds["up-to-edited"],
    }


def said(result: Mapping[str, Any]) -> str:
    """A result in words."""
    lines = [f"{name:>30}: {value:.0f} tokens a second" for name, value in result["tokens_per_second"].items()]
    lines += [
        f"no freezing: {result['ratio_none']:.2f} x the plain Trainer",
        f"up to layer {result['layer']} frozen: {result['ratio_up_to_edited']:.2f} x the plain Trainer, "
        f"{result['ratio_up_to_edited_same_freezing']:.2f} x the plain Trainer with the same freezing",
    ]
    return "\n".join(lines)


def counted(rows: Rows) -> int:
    """Tokens of the training rows."""
    return sum(len(row.input_ids) for row in rows.train)  # type: ignore[attr-defined]


def drawn(tokenizer: Any, settings: TuningSettings) -> Rows:
    """The rows of a run; those that ``fine_tune`` draws for itself are the same."""
    objective = OBJECTIVES.get(settings.objective)
    return draw_rows(TASKS.get(settings.objective), objective, tokenizer, settings, facts=(), seed=0)


def plain(
    model: PreTrainedModel, tokenizer: Any, settings: TuningSettings, rows: Rows, frozen: frozenset[str]
) -> float:
    """Seconds of the plain Trainer."""
    watch = Stopwatch()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    with seeded(0), tempfile.TemporaryDirectory() as folder:
        run = Run(model, model, tokenizer, settings, rows.train, (), folder, 0, settings.steps_at_most)
        trainer = made_trainer(
            run,
            PlainTrainer,
            [row.as_dict() for row in rows.train],
            BY_LENGTH,
            data_collator=partial(collated, pad=run.pad),
            callbacks=[watch],
        )
        trainer.precision = settings.precision
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.requires_grad_(True)
    return watch.seconds


def ours(model: PreTrainedModel, tokenizer: Any, settings: TuningSettings, frozen: frozenset[str]) -> float:
    """Seconds of ``fine_tune``'s training; the held-out figures before and after are not in it."""
    watch = Stopwatch()
    fine_tune(model, tokenizer, settings, frozen=frozen, callbacks=[watch])
    return watch.seconds


@contextmanager
def weights_kept(model: PreTrainedModel) -> Iterator[None]:
    """The weights are as before after the block, so that every way does the same work."""
    kept = copy.deepcopy(model.state_dict())
    yield
    model.load_state_dict(kept)
    model.zero_grad()
    model.__dict__.pop("forward", None)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--objective", default="text", choices=["text", "reason"])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=4, choices=range(1, 5))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--layer", type=int, help="last layer that is frozen; the middle one by default")
    parser.add_argument("--json", action="store_true", help="print one object last; all else goes to stderr")
    return parser.parse_args()


if __name__ == "__main__":
    main()
