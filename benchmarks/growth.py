"""What large inputs take: processor seconds and peak memory of commands on many facts, relations and rows.

    python benchmarks/growth.py                                # all cases, of this build
    python benchmarks/growth.py --baseline HEAD~20 --json      # and of another one, each case in turns
    python benchmarks/growth.py --cases report --rows 50000    # a usual grid: 39 arms, three seeds

Cases, each in a process of its own, start-up included, with one thread:

- relations: `indelible facts --file` of so many facts (`--facts`), each of a relation of its own.
- mistyped: a study on them that names a relation none of theirs.
- plan: planning a study that draws its facts from so many, up to its steps; the model is not loaded.
- grid: planning a study of so many arms (`--arms`), likewise.
- report: `indelible report` of a finished grid of so many rows (`--rows`), simulated with known rates: 36 arms (three
  editors, three objectives, two tuners, with and without a mask), three controls, three seeds; bytes are the page's.

Bytes are otherwise of all that is printed. "few" is the peak memory of the same with a hundred facts, arms, or the
rows of one arm: what imports take, mostly.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from quick_speed import ROOT, environment_of, sources

sys.path.insert(0, str(ROOT / "tests"))

from simulated import SimulatedArm, simulate

EDITORS = {"memit": 0.75, "alphaedit": 0.65, "ft-m": 0.5}
OBJECTIVES = {"text": 0.05, "instruct": 0.0, "reason": -0.1}
TUNERS = {"full": -0.05, "lora": 0.1}
MASKS = {"none": 0.0, "edited-layers": 0.03}
SEEDS = (0, 1, 2)
FEW = 100
PLANNING = """
import sys
from pathlib import Path
from indelible.study.design.config import load_config
from indelible.study.run.run import plan_of
from indelible.study.run.store import Store
print(len(plan_of(load_config(sys.argv[1]), Store(Path("nowhere"))).steps))
"""
Command = Sequence[str]


@dataclass(frozen=True)
class Took:
    """What a process took: seconds of the processor and of the clock, MB at most, and bytes of what is looked at."""

    processor: float
    clock: float
    peak: float
    few: float
    bytes: int


def grid() -> list[SimulatedArm]:
    """Every editor × objective × tuner × mask, and a control for each objective."""
    arms = [
        SimulatedArm(
            name=f"{editor}, {objective}, {tuner}" + ("" if mask == "none" else f", {mask}"),
            editor=editor,
            objective=objective,
            tuner=tuner,
            mask=mask,
            retention_edited=EDITORS[editor] + OBJECTIVES[objective] + TUNERS[tuner] + MASKS[mask],
            retention_intrinsic=0.8 + OBJECTIVES[objective] + TUNERS[tuner],
            spread_between_seeds=0.03,
        )
        for editor, objective, tuner, mask in itertools.product(EDITORS, OBJECTIVES, TUNERS, MASKS)
    ]
    return arms + [SimulatedArm(f"control, {name}", editor="none", objective=name) for name in OBJECTIVES]


def write_run(folder: Path, rows: int, arms: Sequence[SimulatedArm]) -> None:
    """Write a run folder as a study leaves it, with about so many rows: five edits to twelve intrinsic facts."""
    size = max(2, round(rows / len(arms) / len(SEEDS) / 7 / (5 * 3 + 12 * 2)))
    generator, tables = np.random.default_rng(0), []
    for arm in arms:
        facts = {"n_edits": 5 * size, "n_intrinsic": 12 * size, "wordings": 1, "neighbours": 1}
        tables.append(simulate([arm], seeds=SEEDS, generator=generator, **facts))
    answers, runs = (pd.concat(part, ignore_index=True) for part in zip(*tables, strict=True))
    answers = answers.sort_values("seed", kind="stable")  # a study has all arms of one seed, then those of the next
    folder.mkdir(parents=True, exist_ok=True)
    answers.to_parquet(folder / "facts.parquet", index=False)
    recorded(runs).to_parquet(folder / "runs.parquet", index=False)
    about = [{"name": arm.name, "editor": arm.editor, "mask": arm.mask} for arm in arms]
    settings = {"name": "simulated", "model": "smollm2-135m", "seeds": list(SEEDS), "arms": about}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    provenance = {"command": "indelible study simulated.yaml", "versions": {"indelible": "0.1.0"}}
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    print(f"{len(answers):,} rows of {5 * size} edits and {12 * size} intrinsic facts", file=sys.stderr)


def recorded(runs: pd.DataFrame) -> pd.DataFrame:
    """The run table with what a study records beyond the figures."""
    edited = runs["editor"] != "none"
    jitter = np.random.default_rng(1).normal(0, 0.04, len(runs))
    return runs.assign(
        downstream_after=runs["downstream_after"] + jitter,
        downstream=None,
        reached=pd.array([None] * len(runs), dtype="boolean"),
        edit=np.where(edited, "layers 6, 7, 8; 400 bystanders preserved with weight 10", None),
        dropped=pd.array([3] * len(runs), dtype="Int64"),
        dropped_reasons='{"names both": 3}',
    )


def write_facts(file: Path, facts: int, relations: int) -> None:
    """Write facts of so many relations, which take turns."""
    with file.open("w", encoding="utf-8") as lines:
        for number in range(facts):
            relation = number % relations
            fact = {"id": f"f{number}", "subject": f"Place {number:x}", "relation": f"relation {relation}"}
            fact |= {"prompt": f"The {relation:x}th thing of {{}} is", "true_object": f"Thing {number * 3 % 2_000}"}
            lines.write(json.dumps(fact | {"held_out": [f"In {{}}, thing {relation:x} is"]}) + "\n")


def write_study(file: Path, **facts: Any) -> None:
    """Write a study of one arm."""
    settings = {"name": "large", "model": "smollm2-135m", "facts": facts, "arms": [{"name": "x", "editor": "memit"}]}
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")


def write_grid(file: Path, arms: int) -> None:
    """Write a study of about so many arms: four editors, and as many doses as rates."""
    side = max(1, round((arms / 4) ** 0.5))
    axes = {
        "editor": ["memit", "alphaedit", "ft-m", "rome"],
        "steps": {f"{number} steps": {"tuning": {"steps": number}} for number in range(1, side + 1)},
        "rate": {f"{number}e-6": {"tuning": {"learning_rate": number * 1e-6}} for number in range(1, side + 1)},
    }
    settings = {"name": "grid", "model": "smollm2-135m", "facts": {"source": "world"}, "grid": axes}
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")


def prepared(folder: Path, cases: Sequence[str], facts: int, rows: int, arms: int) -> None:
    """Write what the cases read, large and small."""
    for size, number in (("large", facts), ("few", FEW)):
        write_grid(folder / f"grid-{size}.yaml", arms if size == "large" else FEW)
        write_facts(folder / f"relations-{size}.jsonl", number, number)
        write_facts(folder / f"facts-{size}.jsonl", number, 50)
        write_study(folder / f"plan-{size}.yaml", source=str(folder / f"facts-{size}.jsonl"))
        named = {"source": str(folder / f"relations-{size}.jsonl"), "relations": ["realtion 7"]}
        write_study(folder / f"mistyped-{size}.yaml", **named)
        if "report" in cases:
            write_run(folder / f"run-{size}", rows if size == "large" else 1, grid() if size == "large" else grid()[:1])


CASES: dict[str, Callable[[Path, str], Command]] = {
    "relations": lambda folder, size: ["-m", "indelible", "facts", "--file", f"{folder}/relations-{size}.jsonl"],
    "mistyped": lambda folder, size: ["-m", "indelible", "study", f"{folder}/mistyped-{size}.yaml", "--dry-run"],
    "plan": lambda folder, size: ["-c", PLANNING, f"{folder}/plan-{size}.yaml"],
    "grid": lambda folder, size: ["-c", PLANNING, f"{folder}/grid-{size}.yaml"],
    "report": lambda folder, size: ["-m", "indelible", "report", f"{folder}/run-{size}"],
}


def took(build: Path, command: Command, limit: float) -> tuple[float, float, float, int]:
    """Processor and clock seconds, peak MB and printed bytes of a process, which the system ends at the limit."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        limited = ["bash", "-c", f'ulimit -t {int(limit)}; exec "$@"', "bash", sys.executable, *command]
        child = subprocess.Popen(limited, env=environment_of(build), stdout=said, stderr=said)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        size = said.seek(0, os.SEEK_END)
    return used.ru_utime + used.ru_stime, time.perf_counter() - began, used.ru_maxrss / 1024, size


def measured(build: Path, folder: Path, case: str, limit: float) -> Took:
    """A case in one build."""
    processor, clock, peak, said = took(build, CASES[case](folder, "large"), limit)
    few = took(build, CASES[case](folder, "few"), limit)[2]
    looked_at = (folder / "run-large/report.html").stat().st_size if case == "report" else said
    return Took(round(processor, 1), round(clock, 1), round(peak), round(few), looked_at)


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--facts", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--arms", type=int, default=10_000)
    parser.add_argument("--baseline", metavar="REV", help="a commit whose build is measured too")
    parser.add_argument("--limit", type=float, default=900, help="processor seconds after which a process is ended")
    parser.add_argument("--json", action="store_true", help="print one object; all else goes to stderr")
    options = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    other = sources(options.baseline) if options.baseline else nullcontext(None)
    with tempfile.TemporaryDirectory() as temporary, other as there:
        # apart: the system counts what a process held when it started another as the other's peak
        apart = get_context("fork").Process(
            target=prepared, args=(Path(temporary), options.cases, options.facts, options.rows, options.arms)
        )
        apart.start()
        apart.join()
        if apart.exitcode:
            raise SystemExit(apart.exitcode)
        builds = {"here": ROOT / "src"} | ({} if there is None else {"there": there})
        for case, (name, build) in itertools.product(options.cases, builds.items()):
            one = measured(build, Path(temporary), case, options.limit)
            found.setdefault(case, {})[name] = asdict(one)
            words = f"{one.processor:7.1f} s of the processor, {one.peak:6.0f} MB ({one.few:.0f} of few)"
            print(
                f"{case:10} {name:6}{words}, {one.bytes:,} bytes",
                file=sys.stderr if options.json else sys.stdout,
                flush=True,
            )
    if options.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
