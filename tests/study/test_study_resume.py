"""A study that is killed, without warning and more than once, ends like one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from indelible.study.design.settings import StudyConfig
from indelible.study.run.run import preview_study
from indelible.study.run.store import Store
from tiny_studies import write_study

PATIENCE = 120.0
# Writing takes a moment longer than it has to, so that a kill can hit it.
PROGRAM = """
import os, sys, time
flush = os.fsync
os.fsync = lambda handle: (time.sleep(0.03), flush(handle))
from indelible.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def begin(study: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "study", str(study), "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(os.environ.get("OMP_NUM_THREADS", 1))},
    )


def kill_when(process: subprocess.Popen[str], moment: Callable[[], bool]) -> None:
    """SIGKILL the process as soon as the moment has come; it must not have ended before."""
    deadline = time.monotonic() + PATIENCE
    while not moment():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def running(folder: Path, kind: str) -> bool:
    """Whether a step of that kind has begun and not ended."""
    steps = [event for event in Store(folder).events() if "step" in event]
    return bool(steps) and steps[-1]["event"] == "started" and steps[-1]["step"].startswith(kind)


def test_killed_while_it_writes_and_while_it_works_it_ends_like_an_undisturbed_one(
    undisturbed_rows: pd.DataFrame, two_arms: dict[str, Any], tmp_path: Path
) -> None:
    study, folder = write_study(tmp_path / "tiny.yaml", two_arms), tmp_path / "run"

    kill_when(begin(study, folder), lambda: any((folder / "steps").glob(".writing-probe-*")))
    assert any((folder / "steps").glob(".writing-*"))
    kill_when(begin(study, folder), lambda: running(folder, "tune-"))
    last = begin(study, folder)
    _, said = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0, said

    pd.testing.assert_frame_equal(pd.read_parquet(folder / "facts.parquet"), undisturbed_rows)
    assert not any((folder / "steps").glob(".writing-*"))
    assert_no_finished_step_ran_again(folder)
    config = StudyConfig.model_validate(two_arms)
    assert {event["key"] for event in Store(folder).events() if event["event"] == "finished"} == {
        step.key for step in preview_study(config, folder).plan.steps
    }


def assert_no_finished_step_ran_again(folder: Path) -> None:
    finished: set[str] = set()
    begun: list[str] = []
    for event in Store(folder).events():
        if event["event"] == "started":
            assert event["key"] not in finished, f"{event['title']} ran again"
            begun.append(event["key"])
        elif event["event"] in {"finished", "reused"}:
            assert event["event"] == "reused" or event["key"] not in finished
            finished.add(event["key"])
    assert len(begun) > len(set(begun)), "no step was cut short, so nothing was tested"
