"""A study of light steps on Ray workers of this machine: the same results, how much faster, and what deaths cost.

Runs of tuning of two steps, each at a rate of its own, are done by 1, 2 and 4 workers with a thread each. Then, of the
first of them, by two: the process that drives them is killed, and the command given again; and every worker is ended
for memory as it starts (by Ray's own monitor, at a threshold that this machine is above), and the command given again.

    python benchmarks/cluster.py --json                        # a quarter of an hour; nothing else may run beside it
    python benchmarks/cluster.py --steps 12 --workers 1 4

Seconds are from the first step's start to the last one's end, by the run's own record; further workers start within
them. More workers than cores wait for room. Exits with 1 where results differ, or a step was lost or done twice.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from indelible.study.events import Events

KILLED_AFTER = 5
"""Finished steps, after which the driver is killed."""
FEW = 12
"""Steps of the study that is disturbed: the first ones of the other."""
SHORT = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}


def write_study(file: Path, model: str, steps: int) -> None:
    """Write a study of so many steps: facts are chosen, the base model is asked, and the rest are runs of tuning."""
    tuning = {"objective": "text", "steps": 2, "batch_size": 2, "max_tokens": 48, "heldout_examples": 2}
    arms = [
        {"name": f"control {number}", "editor": "none", "tuning": {"learning_rate": number * 1e-5}}
        for number in range(1, steps - 1)
    ]
    facts = {"source": "world", "relations": ["capital"], "n_edits": 1, "n_intrinsic": 4, "held_out": 0}
    settings = {"name": "light", "model": model, "facts": facts, "tuning": tuning, "arms": arms}
    file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def begun(study: Path, folder: Path, workers: int, **environment: str) -> subprocess.Popen[bytes]:
    """Start the study on a cluster of its own."""
    command = [sys.executable, "-m", "indelible", "study", str(study), "--out", str(folder)]
    command += ["--on", "ray", "--workers", str(workers), "--each", "cpus=1", "--each", "memory=1"]
    with folder.with_suffix(".log").open("ab") as log:
        own = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        return subprocess.Popen(command, env=own, stdout=log, stderr=log)


def ended(study: Path, folder: Path, workers: int, **environment: str) -> int:
    """Run the study to its end, or what is left of it: its exit code."""
    return begun(study, folder, workers, **environment).wait()


def seconds(folder: Path) -> float:
    """From the first step's start to the last one's end."""
    times = [event["time"] for event in events(folder) if event["event"] in ("started", "finished")]
    return float(max(times) - min(times))


def events(folder: Path) -> list[dict[str, Any]]:
    """All that is recorded of the run."""
    return Events(folder / "events.jsonl").read()[0]


def wrong(folder: Path, reference: Path, steps: int) -> list[str]:
    """In words, what a run lost, did twice or did otherwise than another, which may have had further arms."""
    done = Counter(event["key"] for event in events(folder) if event["event"] == "finished")
    found = [f"{folder.name}: {times} times {key[:16]}" for key, times in done.items() if times > 1]
    if len(done) != steps:
        found.append(f"{folder.name}: {len(done)} of {steps} steps")
    rows, expected = (pd.read_parquet(one / "facts.parquet") for one in (folder, reference))
    expected = expected[expected["arm"].isin(rows["arm"])].reset_index(drop=True)
    return found if rows.equals(expected) else [*found, f"{folder.name}: other rows"]


def killed(study: Path, folder: Path) -> str:
    """Kill the driver while steps are done, and give the command again: what went wrong, in words."""
    driver = begun(study, folder, 2)
    while driver.poll() is None:
        time.sleep(0.1)
        if sum(event["event"] == "finished" for event in events(folder)) >= KILLED_AFTER:
            driver.kill()
            driver.wait()
    return _gone_on(driver.returncode == -9, study, folder)


def short_of_memory(study: Path, folder: Path) -> str:
    """Have every worker ended for memory, and give the command again: what went wrong, in words."""
    code = ended(study, folder, 2, **SHORT)
    said = folder.with_suffix(".log").read_text()
    one_line = code == 2 and "A worker of the cluster died" in said and "Traceback" not in said
    return _gone_on(one_line, study, folder)


def _gone_on(disturbed: bool, study: Path, folder: Path) -> str:
    said = folder.with_suffix(".log").read_text()[-300:]
    if not disturbed:
        return f"not disturbed as it should be: {said}"
    return "" if ended(study, folder, 2) == 0 else f"not gone on with: {said}"


def main() -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=40, help="of the study")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--json", action="store_true", help="print one object; all else goes to stderr")
    options = parser.parse_args()
    say = sys.stderr if options.json else sys.stdout
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        study = home / "light.yaml"
        write_study(study, options.model, options.steps)
        took, faults, deaths = dict[int, float](), list[str](), dict[str, str]()
        reference = home / f"workers-{options.workers[0]}"
        for workers in options.workers:
            folder = home / f"workers-{workers}"
            if ended(study, folder, workers):
                raise SystemExit(folder.with_suffix(".log").read_text())
            took[workers] = round(seconds(folder), 1)
            faults += wrong(folder, reference, options.steps)
            print(f"{workers} workers: {took[workers]} s, {took[options.workers[0]] / took[workers]:.2f}", file=say)
        few = min(FEW, options.steps)
        write_study(study, options.model, few)
        for name, disturb in (("killed", killed), ("short of memory", short_of_memory)):
            folder = home / name.replace(" ", "-")
            said = disturb(study, folder)
            found = [f"{name}: {said}"] if said else wrong(folder, reference, few)
            deaths[name] = "; ".join(found) or "gone on with, as undisturbed"
            faults += found
            print(f"{name}: {deaths[name]}", file=say)
    result = {"steps": options.steps, "seconds": took, "deaths": deaths, "wrong": faults}
    print(json.dumps(result, indent=2) if options.json else "\n".join(faults) or "all as by one worker")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
