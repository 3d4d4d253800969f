"""Processor time of a small study, part by part, in this build and in another, and whether they say the same.

Both builds do the same study in processes of their own, in turns, on one thread. Parts are the kinds of steps: choosing
facts, exams, edits, tuning. The other build is taken from the repository at a revision; the model's files and cached
covariances are shared, so that a first round, which is not counted, makes what is made once.

    python benchmarks/quick_speed.py --baseline HEAD~20 --json
    python benchmarks/quick_speed.py --baseline HEAD~20 --own-quick   # each its own `quick`: work done a second
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "facts": {"n_edits": 12, "n_intrinsic": 30},
    "tuning": {"steps": 6, "heldout_examples": 16},
    "exam": {"every": 3},
    "arms": [
        {"name": "memit", "editor": "memit"},
        {"name": "memit-p3", "editor": "memit", "paraphrases": 3},
        {"name": "control", "editor": "none"},
    ],
}
"""What differs from the built-in `quick` of the baseline."""

NUMBERS = ("log_prob", "margin")


def do_study(study: str, folder: Path) -> None:
    """Do a study here, in whichever build was imported, and print what each of its steps took."""
    import torch

    from indelible.progress import Watcher
    from indelible.study.design.config import load_config
    from indelible.study.run.run import run_study

    torch.set_num_threads(1)
    took: dict[str, float] = defaultdict(float)
    began: dict[str, float] = {}

    class Timer(Watcher):
        def started(self, piece: Any) -> None:
            began[piece.key] = time.process_time()

        def ended(self, piece: Any, end: Any, seconds: float, note: str) -> None:
            took[piece.kind] += time.process_time() - began.pop(piece.key, time.process_time())

    config = load_config(study, [])
    outcome = run_study(config, folder, watcher=Timer())
    assert not outcome.failures, outcome.failures
    size = (config.facts.n_edits + config.facts.n_intrinsic) * len(outcome.summary) * len(config.seeds)
    whole = time.process_time()
    print(json.dumps({"parts": took, "whole": whole, "facts_arms_seeds": size}))


@contextmanager
def sources(revision: str) -> Iterator[Path]:
    """The package's sources as they were at a revision."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(place), revision], check=True, capture_output=True)
        try:
            yield place / "src"
        finally:
            subprocess.run([*git, "remove", "--force", str(place)], check=True, capture_output=True)


def environment_of(build: Path) -> dict[str, str]:
    """That of a process with one thread which imports the package from there."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**os.environ, **threads, "PYTHONPATH": str(build), "TOKENIZERS_PARALLELISM": "false"}


def measured(build: Path, study: str, folder: Path) -> dict[str, Any]:
    """One study by one build, in a process of its own."""
    command = [sys.executable, __file__, "--one", study, str(folder)]
    found = subprocess.run(command, env=environment_of(build), check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return result


def differences(here: pd.DataFrame, there: pd.DataFrame) -> dict[str, Any]:
    """By phase: rows, verdicts that differ, and how far log-probabilities are apart at most."""
    by = ["arm", "seed", "phase", "step", "fact_set", "fact_id", "kind", "wording"]
    both = here.merge(there, on=by, suffixes=("", "_there"), how="outer", indicator=True)
    found = {}
    for phase, rows in both.groupby("phase"):
        apart = {name: float((rows[name] - rows[f"{name}_there"]).abs().max()) for name in NUMBERS}
        found[str(phase)] = {
            "rows": len(rows),
            "in_one_only": int((rows["_merge"] != "both").sum()),
            "verdicts_apart": int((rows["success"] != rows["success_there"]).sum()),
            "kept_here": float(rows["success"].mean()),
            "kept_there": float(rows["success_there"].mean()),
            **apart,
        }
    return found


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baseline", help="revision of the other build")
    parser.add_argument("--rounds", type=int, default=1, help="counted rounds of the small study")
    parser.add_argument("--own-quick", action="store_true", help="each build does its own built-in study `quick`")
    parser.add_argument("--json", action="store_true", help="print one object last; all else goes to stderr")
    parser.add_argument("--one", nargs=2, metavar=("STUDY", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        do_study(arguments.one[0], Path(arguments.one[1]))
        return
    if not arguments.baseline:
        parser.error("give --baseline REVISION")
    with sources(arguments.baseline) as there, tempfile.TemporaryDirectory() as name:
        builds = {"there": there, "here": ROOT / "src"}
        study = "quick" if arguments.own_quick else str(_small(Path(name), there))
        seconds: dict[str, dict[str, float]] = {build: defaultdict(float) for build in builds}
        work = {}
        first = 0 if arguments.own_quick else -1
        for turn in range(first, 1 if arguments.own_quick else arguments.rounds):
            for build, place in builds.items():
                folder = Path(name) / f"{build}{turn}"
                result = measured(place, study, folder)
                work[build] = result["facts_arms_seeds"]
                print(f"{build}, round {turn}: {result}", file=sys.stderr)
                if turn >= 0:
                    for part, spent in {**result["parts"], "whole": result["whole"]}.items():
                        seconds[build][part] += spent
        last = max(0, arguments.rounds - 1) if not arguments.own_quick else 0
        frames = [pd.read_parquet(Path(name) / f"{build}{last}" / "facts.parquet") for build in ("here", "there")]
        same = None if arguments.own_quick else differences(*frames)
    ratios = {part: seconds["there"][part] / seconds["here"][part] for part in seconds["here"] if seconds["here"][part]}
    rates = {build: work[build] / seconds[build]["whole"] for build in builds}
    for part, ratio in ratios.items():
        there_s, here_s = seconds["there"][part], seconds["here"][part]
        print(f"{part:12} {there_s:8.1f} s there {here_s:8.1f} s here  ratio {ratio:.2f}", file=sys.stderr)
    print(f"facts x arms x seeds a second, here to there: {rates['here'] / rates['there']:.2f}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"seconds": seconds, "ratios": ratios, "rates": rates, "same": same}, indent=2))


def _small(folder: Path, build: Path) -> Path:
    """The small study as a file: the baseline's `quick`, cut."""
    import yaml

    presets = [path for path in build.rglob("quick.yaml") if "presets" in path.parts]
    settings = yaml.safe_load(presets[0].read_text(encoding="utf-8"))
    for key, value in SMALL.items():
        settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
