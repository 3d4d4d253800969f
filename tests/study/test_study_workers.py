"""Steps done side by side in processes of their own: the same results, and nothing lost when one of them dies."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest
import torch

from indelible.study.design.settings import StudyConfig
from indelible.study.run.executors.processes import _Worker, workers_for
from indelible.study.run.executors.threads import computing_with
from indelible.study.run.run import Outcome, preview_study, run_study
from indelible.study.run.step import World
from indelible.study.run.store import Store
from watchers import Interrupter, Killer, ends


def test_two_workers_give_what_one_process_gives_and_tell_an_error_as_it_does(
    undisturbed: Outcome, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings["arms"].insert(0, {"name": "wild", "editor": "none", "tuning": {"learning_rate": 1e30}})
    config = StudyConfig.model_validate(settings)
    outcome = run_study(config, tmp_path / "run", workers=2)
    (failure,) = outcome.failures
    assert failure.title == "tune: wild, seed 0" and "learning_rate" in failure.error
    kept = next((outcome.folder / "failed").glob("tune-*.json")).read_text(encoding="utf-8")
    assert "TrainingDivergedError" in kept and "steps/tune.py" in kept  # where it happened, in the other process
    runs = pd.read_parquet(outcome.folder / "runs.parquet").set_index("arm")
    others = ("memit", "memit-frozen", "control")
    assert runs["status"].to_dict() == {"wild": "failed"} | dict.fromkeys(others, "done")
    rows = pd.read_parquet(outcome.folder / "facts.parquet")
    pd.testing.assert_frame_equal(
        rows[rows["arm"] != "wild"].reset_index(drop=True), pd.read_parquet(undisturbed.folder / "facts.parquet")
    )
    without_time = [{**arm, "seconds": None} for arm in outcome.summary if arm["arm"] != "wild"]
    assert without_time == [{**arm, "seconds": None} for arm in undisturbed.summary]
    events = Store(outcome.folder).events()
    assert ends(outcome.folder)["finished"] == len(preview_study(config, outcome.folder).plan.steps) - 1
    # two steps were at work at the same time
    at_once = most = 0
    for event in events:
        at_once += {"started": 1, "finished": -1, "failed": -1}.get(event["event"], 0)
        most = max(most, at_once)
    assert most == 2


def test_a_worker_that_is_killed_costs_its_step_alone_and_the_next_run_does_it(
    undisturbed_rows: pd.DataFrame, two_arms: dict[str, Any], tmp_path: Path
) -> None:
    config = StudyConfig.model_validate(two_arms)
    killer = Killer("tune: control, seed 0", signal.SIGKILL, "spawn_main")
    outcome = run_study(config, tmp_path / "run", watcher=killer, workers=2)
    assert killer.killed
    failed = {failure.title: failure.error for failure in outcome.failures}
    assert 1 <= len(failed) <= killer.killed and "tune: control, seed 0" in failed
    assert "ended by signal 9" in failed["tune: control, seed 0"]
    before = torch.get_num_threads()
    with computing_with(before + 1):
        again = run_study(config, tmp_path / "run")
    assert not again.failures and torch.get_num_threads() == before
    records = [json.loads(path.read_text()) for path in (again.folder / "steps").glob("*/step.json")]
    assert {record["threads"] for record in records} == {Store(again.folder).threads} == {max(1, before // 2)}
    pd.testing.assert_frame_equal(pd.read_parquet(again.folder / "facts.parquet"), undisturbed_rows)
    assert ends(again.folder)["finished"] == len(preview_study(config, again.folder).plan.steps)
    assert not list((again.folder / "steps").glob(".*"))


def test_interrupting_ends_the_workers_and_keeps_what_is_finished(two_arms: dict[str, Any], tmp_path: Path) -> None:
    assert threading.current_thread() is threading.main_thread()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(KeyboardInterrupt):
        run_study(StudyConfig.model_validate(two_arms), tmp_path / "run", watcher=Interrupter(), workers=2)
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert not [child for child in left if "spawn_main" in " ".join(child.cmdline())]
    counts = ends(tmp_path / "run")
    assert counts["finished"] and not counts["failed"]
    assert not run_study(StudyConfig.model_validate(two_arms), tmp_path / "run").failures


def test_a_worker_may_be_ended_by_two_at_once() -> None:
    worker: Any = _Worker(World("any", (), "any"), 1)
    close, errors = worker._connection._close, []

    def end() -> None:
        try:
            worker.end()
        except Exception as error:
            errors.append(error)

    worker._connection._close = lambda: (time.sleep(0.3), close())  # as long as it takes the other to come
    threads = [threading.Thread(target=end) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and worker._process.exitcode is not None


def test_as_many_workers_as_suit_cores_steps_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(available=10**10)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert workers_for(threads=2, steps=5, weights=10**6) == 2
    assert workers_for(threads=16, steps=3, weights=10**6) == 3
    assert workers_for(threads=16, steps=40, weights=10**6) == 6
    assert workers_for(threads=16, steps=40, weights=10**15) == 1
