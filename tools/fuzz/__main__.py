"""The command: divides the cases among processes, gathers what became of them, and prints a table."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.running import Workers, begin, generator, targets, write_material
from fuzz.watch import HANG_SECONDS

WEIGHTS = {
    **{"study-file": 8, "study-options": 7, "set": 10, "claims": 12, "facts": 26, "data": 21, "run-folder": 1},
    **{"paths": 1, "words": 1, "delta": 9, "adapter": 4},
}
"""Parts of all cases, by target."""
PIECE = 50
"""Cases that a process is given at once."""


@dataclass
class Tally:
    """What became of a target's cases; ``faults`` by what they are, with the first case of each."""

    states: Counter[str] = field(default_factory=Counter)
    outside: int = 0
    seconds: float = 0.0


def pieces_of(cases: int, only: list[str]) -> list[tuple[str, list[int]]]:
    """All cases in pieces of one target, the targets in turn."""
    weights = {name: weight for name, weight in WEIGHTS.items() if name in (only or WEIGHTS)}
    counts = {name: round(cases * weight / sum(weights.values())) for name, weight in weights.items()}
    found = []
    for name, count in counts.items():
        numbers = list(range(count))
        found += [(place / count, name, numbers[place : place + PIECE]) for place in range(0, count, PIECE)]
    return [(name, numbers) for _, name, numbers in sorted(found)]


def again(kept: Path, folder: Path, seed: int, named: str) -> int:
    """One case alone, with what it was given and its traceback."""
    target, _, number = named.partition(":")
    desk, watch = begin(kept, folder / "again")
    case, given = targets()[target](desk, generator(seed, target, int(number)))
    print(given)
    outcome = watch.run(case)
    print(f"\n{outcome.state}: {outcome.said} {outcome.where} {outcome.outside or ''} ({outcome.seconds:.1f} s)")
    if outcome.state == "traceback":
        case()  # once more, as it is
    return outcome.state in ("traceback", "hang") or bool(outcome.outside)


def main() -> int:
    """Returns: 1 if any case came to a fault."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Damaged and hostile input for every reader.")
    parser.add_argument("--cases", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", action="append", choices=sorted(WEIGHTS), help="Repeatable.")
    parser.add_argument("--case", metavar="TARGET:NUMBER", help="One case of a seed again, with its traceback.")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
        folder = Path(made)
        kept = folder / "kept"
        write_material(kept, folder / "making")
        if given.case:
            return again(kept, folder, given.seed, given.case)
        return _all(kept, folder, given)


def _all(kept: Path, folder: Path, given: Any) -> int:
    tallies: dict[str, Tally] = defaultdict(Tally)
    faults: dict[str, list[str]] = defaultdict(list)
    began = told = time.monotonic()
    pieces = pieces_of(given.cases, given.only or [])
    total = sum(len(numbers) for _, numbers in pieces)
    workers = Workers(given.workers, kept, folder, given.seed)
    for done, (target, number, outcome) in enumerate(workers.do(pieces), start=1):
        tally = tallies[target]
        tally.states[outcome.state] += 1
        tally.seconds += outcome.seconds
        tally.outside += bool(outcome.outside)
        kinds = [f"outside {what:.140}" for what in outcome.outside]
        if outcome.state in ("traceback", "hang"):
            kinds.append(f"{outcome.state} {outcome.where}: {outcome.said:.100}")
        for kind in kinds:
            if kind not in faults:
                print(f"{target}:{number} {kind}", file=sys.stderr, flush=True)
            faults[kind].append(f"{target}:{number}")
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"{done} of {total}, {told - began:.0f} s, {len(faults)} kinds of fault", file=sys.stderr, flush=True)
    for what, cases in sorted(faults.items(), key=lambda fault: -len(fault[1])):
        print(f"{len(cases):5} {what}   [--seed {given.seed} --case {cases[0]}]")
    head = ("target", "cases", "fine", "errors", "tracebacks", f"over {HANG_SECONDS:.0f} s", "outside", "CPU s")
    rows = [head, *(_row(name, tallies[name]) for name in WEIGHTS if name in tallies)]
    rows.append(_row("all", _sum(tallies)))
    for row in rows:
        print(f"{row[0]:14}" + "".join(f"{cell:>12}" for cell in row[1:]))
    print(f"{time.monotonic() - began:.0f} s in {given.workers} processes, seed {given.seed}")
    return bool(faults)


def _row(name: str, tally: Tally) -> tuple[str, ...]:
    states = [tally.states[state] for state in ("fine", "typed", "traceback", "hang")]
    return (name, *map(str, (sum(states), *states, tally.outside)), f"{tally.seconds:.0f}")


def _sum(tallies: dict[str, Tally]) -> Tally:
    whole = Tally()
    for tally in tallies.values():
        whole.states += tally.states
        whole.outside += tally.outside
        whole.seconds += tally.seconds
    return whole


if __name__ == "__main__":
    sys.exit(main())
