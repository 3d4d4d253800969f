"""Whether anything is lost, done twice or silent when studies are disturbed: killed, short of disk, damaged on it.

A tiny study is run once and left alone; every disturbance is done to a copy of it, of which a step and all results are
made again, and what comes out is compared with the undisturbed run: rows, tables, deltas, rulings. The page is written
without its figures, which would take seconds each time. What is random is drawn from the seed, which is printed.

    make faults                                                # 315 of all kinds, and 3,000 flipped bits
    python benchmarks/faults.py --only kill --count 50 --seed 7

Exits with 1 if anything was lost, done twice or silent, if a traceback was shown, or a leftover was not swept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import matplotlib.pyplot  # noqa: F401  what a study imports late is imported before it is forked
import torch
import transformers.trainer  # noqa: F401
import trl  # noqa: F401

import indelible.cli.program
import indelible.report.folder
import indelible.study.reporting
import indelible.study.run.run
import indelible.study.run.steps.edit
import indelible.study.run.steps.tune  # noqa: F401
from fault.flips import flips
from fault.ground import Ground, forked
from fault.kinds import KINDS, Wrong

FLIPS = "flips"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=[*KINDS, FLIPS], action="append", help="a kind of disturbance; repeatable")
    parser.add_argument("--count", type=int, help="of each kind; by default 315 of all, each kind its share of them")
    parser.add_argument("--flips", type=int, default=3000, help="bits to flip, over all files of a run")
    parser.add_argument("--seed", type=int, default=None, help="of all that is random; a new one by default")
    given = parser.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    torch.set_num_threads(1)
    wrong: list[str] = []
    rows: list[tuple[str, int, str]] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as home:
        began = time.monotonic()
        ground = Ground(Path(home), seed)
        print(f"one undisturbed run: {time.monotonic() - began:.0f} s", flush=True)
        for name in given.only or [*KINDS, FLIPS]:
            # each kind from a state of its own, so that --only repeats it
            ground.chance.seed(f"{seed} {name}")
            came, faults = _flips(ground, given.flips) if name == FLIPS else _disturbed(ground, name, given.count)
            rows += [(name, number, what) for what, number in sorted(came.items())]
            rows += [(name, 1, f"WRONG: {fault}") for fault in faults]
            wrong += faults
    for name, number, what in rows:
        print(f"{name:8} {number:6}  {what}")
    print(f"{sum(number for _, number, _ in rows)} disturbances, {len(wrong)} wrong, seed {seed}")
    return 1 if wrong else 0


def _disturbed(ground: Ground, name: str, count: int | None) -> tuple[Counter[str], list[str]]:
    """One kind, so many times: what came of it, and what was wrong."""
    came, wrong, said = Counter[str](), list[str](), time.monotonic()
    count = KINDS[name].share if count is None else count
    for done in range(1, count + 1):
        try:
            came[KINDS[name].disturb(ground)] += 1
        except Wrong as fault:
            wrong.append(str(fault))
            print(f"{name}: WRONG: {fault}", flush=True)
        if time.monotonic() - said > 30 or done == count:
            said = time.monotonic()
            print(f"{name}: {done} of {count}, {len(wrong)} wrong", flush=True)
    return came, wrong


def _flips(ground: Ground, number: int) -> tuple[Counter[str], list[str]]:
    """In a process of its own: what it reads starts threads."""
    told = ground.home / "flips.json"
    ended = forked(lambda: print(told.write_text(json.dumps(flips(ground, number)))))
    if ended.code:
        return Counter(), [f"flips: {ended.said}"]
    came, silent = json.loads(told.read_text())
    print(f"{FLIPS}: {sum(came.values()) + len(silent)} of {number}, {len(silent)} wrong", flush=True)
    return Counter({"noticed, or of no effect": sum(came.values())}), silent


if __name__ == "__main__":
    sys.exit(main())
