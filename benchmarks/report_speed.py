"""How long `indelible report` takes on a finished grid of 50,000 rows, and how large its page is.

Makes a run folder as a study leaves it (rows, runs, settings, provenance) out of simulated answers with known rates:
36 arms (three editors, three objectives, two tuners, with and without a mask) and three controls, three seeds. Then it
runs the command in a process of its own, start-up included, on one core. Where other work takes turns on that core,
"processor" says how much of the time was the command's own. `--json` prints one object last.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from simulated import SimulatedArm, simulate

EDITORS = {"memit": 0.75, "alphaedit": 0.65, "ft-m": 0.5}
OBJECTIVES = {"text": 0.05, "instruct": 0.0, "reason": -0.1}
TUNERS = {"full": -0.05, "lora": 0.1}
MASKS = {"none": 0.0, "edited-layers": 0.03}
SEEDS = (0, 1, 2)


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


def write_run(folder: Path) -> int:
    """Write the run folder; returns how many rows it has."""
    rows, runs = simulate(
        grid(), seeds=SEEDS, n_edits=10, n_intrinsic=16, wordings=1, neighbours=1, generator=np.random.default_rng(0)
    )
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(folder / "facts.parquet", index=False)
    _recorded(runs).to_parquet(folder / "runs.parquet", index=False)
    arms = [{"name": arm.name, "editor": arm.editor, "mask": arm.mask} for arm in grid()]
    settings = {"name": "simulated", "model": "smollm2-135m", "seeds": list(SEEDS), "arms": arms}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    provenance = {"command": "indelible study simulated.yaml", "versions": {"indelible": "0.1.0"}}
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    return len(rows)


def _recorded(runs: pd.DataFrame) -> pd.DataFrame:
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


def main() -> None:
    """Make the folder, time the command, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to make the run folder; by default a temporary one")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary) / "run"
        n_rows = write_run(folder)
        seconds, processor = _time_report(folder)
        page = (folder / "report.html").stat().st_size
    print(f"{n_rows} rows, {len(grid())} arms, {len(SEEDS)} seeds")
    print(f"report in {seconds:.1f} s (processor {processor:.1f} s), page {page / 1e6:.2f} MB")
    if arguments.json:
        found = {"rows": n_rows, "arms": len(grid()), "seconds": round(seconds, 2)}
        print(json.dumps(found | {"processor_seconds": round(processor, 2), "page_bytes": page}))


def _time_report(folder: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor that the command takes, with one thread and, where the system can say
    so, on one core."""
    one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "indelible", "report", str(folder)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **one_thread},
        preexec_fn=_on_one_core if hasattr(os, "sched_setaffinity") else None,
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def _on_one_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


if __name__ == "__main__":
    main()
