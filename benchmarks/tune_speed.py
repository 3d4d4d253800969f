"""Tokens a second of fine-tuning here, against transformers' Trainer used plainly, on the same rows in one run.

The plain Trainer gets the model, the rows and the arguments of the run, and computes the loss as models do it
themselves, with logits everywhere. It is timed without freezing, and once more with the same parameters frozen, so that
what freezing saves anybody is told apart from what is saved here. Ways take turns, round after round; a ratio is that
of the summed seconds (of all threads of the process on a CPU, of the clock on a GPU), since noise of the machine then
falls on all of them. The operations of each way's second step, and those that wait for a GPU, are counted by the way.

    python benchmarks/tune_speed.py
    python benchmarks/tune_speed.py --objective reason --steps 4 --layer 8 --json
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
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback

from indelible.models.layout import find_layout
from indelible.models.load import load
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.objective import OBJECTIVES, Run, tuning_settings
from indelible.tuning.randomness import seeded
from indelible.tuning.rows import Rows, draw_rows
from indelible.tuning.settings import TuningSettings
from indelible.tuning.task import TASKS
from indelible.tuning.train import fine_tune, with_precision
from indelible.tuning.training.batches import collated
from indelible.tuning.training.trainer import BY_LENGTH, made_trainer

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal")
"""Operations whose result the host needs, or the size of it."""


class Counted(TorchDispatchMode):
    """Operations that are dispatched, backward passes and the optimizer's included, and those that wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.waits = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        self.operations += not function.is_view
        by_mask = name == "index" and any(one is not None and one.dtype == torch.bool for one in args[1])
        self.waits += name in WAITS or by_mask
        return function(*args, **(kwargs or {}))


class Stopwatch(TrainerCallback):
    """Seconds between the end of the second step, whose operations are counted, and the end of training; the first one
    makes what is made once."""

    def __init__(self) -> None:
        self.began = self.seconds = 0.0
        self.counted = Counted()

    def on_step_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.global_step == 1:
            self.counted.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.global_step == 2:
            self.counted.__exit__(None, None, None)
            self.began = now()

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        self.seconds = now() - self.began


def now() -> float:
    """Seconds that this process has computed for, or the clock's where it waits for a GPU."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


class PlainTrainer(Trainer):
    """transformers' Trainer in the run's precision, and nothing else."""

    library_name = "Trainer"
    precision = "fp32"

    def compute_loss(self, *around: Any, **more: Any) -> Any:
        with torch.autocast(self.args.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            return super().compute_loss(*around, **more)


def main() -> None:
    options = _options()

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    loaded = load(options.model)
    results = {name: compared(loaded.model, loaded.tokenizer, name, options, say) for name in options.objective}
    for name, result in results.items():
        say(f"{name}:\n{said(result)}")
    if options.json:
        print(json.dumps(results))


def compared(
    model: PreTrainedModel, tokenizer: Any, objective: str, options: argparse.Namespace, say: Callable[[str], None]
) -> dict[str, Any]:
    """Both trainers on the rows of one objective, in turns."""
    layout = find_layout(model)
    layer = layout.n_layers // 2 if options.layer is None else options.layer
    frozen = frozen_parameters("up-to-edited", model, layout, [layout.mlp_out_weight[layer]])
    settings = with_precision(
        tuning_settings({"objective": objective, "steps": options.steps, "batch_size": options.batch_size,
                         "max_tokens": options.max_tokens, "heldout_examples": 1, "warmup_steps": 0}),
        model.device,
    )  # fmt: skip
    rows = drawn(tokenizer, settings)
    ways: dict[str, Callable[[], Stopwatch]] = {
        "plain": lambda: plain(model, tokenizer, settings, rows, frozenset()),
        "none": lambda: ours(model, tokenizer, settings, frozenset()),
        "plain, frozen": lambda: plain(model, tokenizer, settings, rows, frozen),
        "up-to-edited": lambda: ours(model, tokenizer, settings, frozen),
    }
    seconds: dict[str, float] = defaultdict(float)
    counts: dict[str, dict[str, int]] = {}
    for number in range(options.rounds):
        for name in [*ways][number:] + [*ways][:number]:  # another one first in every round
            with weights_kept(model):
                watch = ways[name]()
            seconds[name] += watch.seconds
            counts[name] = {"operations": watch.counted.operations, "waits": watch.counted.waits}
            say(f"{objective}, round {number + 1}: {name}: {watch.seconds:.1f} s")
    tokens = sum(len(row.input_ids) for row in rows.train)  # type: ignore[attr-defined]
    read = tokens * (options.steps - 2) / options.steps
    return {
        "tokens": tokens,
        "layer": layer,
        "precision": settings.precision,
        "threads": torch.get_num_threads(),
        "tokens_per_second": {name: options.rounds * read / total for name, total in seconds.items()},
        "second_step": counts,
        **ratios(seconds),
    }


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
        f"{name:>30}: {one['operations']} operations and {one['waits']} waits in a step"
        for name, one in result["second_step"].items()
    ]
    lines += [
        f"no freezing: {result['ratio_none']:.2f} x the plain Trainer",
        f"up to layer {result['layer']} frozen: {result['ratio_up_to_edited']:.2f} x the plain Trainer, "
        f"{result['ratio_up_to_edited_same_freezing']:.2f} x the plain Trainer with the same freezing",
    ]
    return "\n".join(lines)


def drawn(tokenizer: Any, settings: TuningSettings) -> Rows:
    """The rows of a run; those that ``fine_tune`` draws for itself are the same."""
    objective = OBJECTIVES.get(settings.objective)
    return draw_rows(TASKS.get(settings.objective), objective, tokenizer, settings, facts=(), seed=0)


def plain(
    model: PreTrainedModel, tokenizer: Any, settings: TuningSettings, rows: Rows, frozen: frozenset[str]
) -> Stopwatch:
    """The plain Trainer, timed."""
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
    return watch


def ours(model: PreTrainedModel, tokenizer: Any, settings: TuningSettings, frozen: frozenset[str]) -> Stopwatch:
    """``fine_tune``'s training, timed; the held-out figures before and after are not in it."""
    watch = Stopwatch()
    fine_tune(model, tokenizer, settings, frozen=frozen, callbacks=[watch])
    return watch


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
    parser.add_argument("--objective", nargs="+", default=["text", "reason"], choices=["text", "reason"])
    parser.add_argument("--steps", type=int, default=6, help="three at least")
    parser.add_argument("--rounds", type=int, default=4, choices=range(1, 5))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--layer", type=int, help="last layer that is frozen; the middle one by default")
    parser.add_argument("--json", action="store_true", help="print one object last; all else goes to stderr")
    return parser.parse_args()


if __name__ == "__main__":
    main()
