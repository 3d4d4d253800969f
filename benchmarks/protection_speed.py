"""What a protection adds to a training step: processor time over that of the plain step, side by side in one process.

Runs with and without a protection take turns, from the same edited model and on the same rows. Of steps the mean time
over all but the first few, in which what some protections do every few steps has its share; what a protection makes
before the first step is told apart, in steps of the plain run.

    python benchmarks/protection_speed.py --json
    python benchmarks/protection_speed.py --protect "anchor" "key-anchor+replay" --steps 8
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import fmean
from typing import Any

import torch
from transformers import TrainerCallback

from indelible.care.edit import edit
from indelible.edits.mending import Mending
from indelible.facts.choose import in_turns
from indelible.facts.world import world_facts
from indelible.models.load import load
from indelible.tuning.protection import PROTECTIONS, Guarded, protections_from
from indelible.tuning.train import fine_tune

SKIPPED = 4
"""Steps at the beginning that are not counted."""

BATCH = {"batch_size": 8, "max_tokens": 64, "heldout_examples": 4, "learning_rate": 1e-4}


class Stopwatch(TrainerCallback):
    """Processor seconds of each step, and of what happens between the start of training and the first one."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.first = 0.0
        self._since = time.process_time()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if not self.steps and not self.first:
            self.first = time.process_time() - self._since
        self._since = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps.append(time.process_time() - self._since)


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protect", nargs="*", default=[], help="protections as in a study; all that are built in")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--objective", default="reason")
    parser.add_argument("--facts", type=int, default=48)
    parser.add_argument("--steps", type=int, default=8, help="that are counted: a multiple of every's")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one object last; all else goes to stderr")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load(arguments.model, device="cpu")
    model, tokenizer = loaded.model, loaded.tokenizer
    facts = [fact for fact in in_turns(world_facts(), 0) if fact.new_object][: arguments.facts]
    made = edit(loaded, facts, "ft-m", steps=2)
    made.apply(model)
    edited = {name: one.detach().clone() for name, one in model.named_parameters()}
    names = arguments.protect or [name for name in PROTECTIONS.names() if not PROTECTIONS.get(name).finishes]
    seconds: dict[str, list[float]] = {name: [] for name in ("none", *names)}
    before: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name in seconds:
            watch = Stopwatch()
            guarded = Guarded.of(model, tokenizer, made.facts, made.parameters, mending=Mending.of(made))
            fine_tune(
                model,
                tokenizer,
                {**BATCH, "objective": arguments.objective, "steps": SKIPPED + arguments.steps},
                protections=() if name == "none" else protections_from(name),
                guarded=guarded,
                callbacks=[watch],
            )
            counted = watch.steps[SKIPPED:]
            seconds[name] += counted
            before[name] = watch.first
            with torch.no_grad():
                for parameter, weight in edited.items():
                    model.get_parameter(parameter).copy_(weight)
            print(f"{name}: {fmean(counted):.2f} s a step, {watch.first:.1f} s before", file=sys.stderr)
    plain = fmean(seconds["none"])
    ratios = {name: fmean(found) / plain for name, found in seconds.items()}
    made_before = {name: (found - before["none"]) / plain for name, found in before.items()}
    for name, ratio in ratios.items():
        cost = f"{fmean(seconds[name]):6.2f} s  ratio {ratio:.2f}  before: {made_before[name]:.1f} steps"
        print(f"{name:16} {cost}", file=sys.stderr)
    if arguments.json:
        found = {"step_seconds": seconds, "before_seconds": before, "ratios": ratios, "before_in_steps": made_before}
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
