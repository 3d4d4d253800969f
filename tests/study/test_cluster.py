"""Steps done by Ray's workers: the same results, and nothing lost or done twice when one of them dies."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import ray

from indelible.errors import ConfigError, StoreError
from indelible.study.design.settings import Share, StudyConfig
from indelible.study.run.base_model import ModelVersion
from indelible.study.run.executors.cluster import room
from indelible.study.run.executors.ray_worker import RayWorker, await_files
from indelible.study.run.run import plan_of, preview_study, run_study
from indelible.study.run.step import Job, World
from indelible.study.run.store import Store
from watchers import Interrupter, Killer, ends


def ended(worker: str) -> bool:
    """Whether this process's children of that name end; Ray answers before what it kills is gone."""
    end = time.monotonic() + 30
    while any(worker in name for name in map(_name, psutil.Process().children(recursive=True))):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return ""


def test_a_worker_that_is_killed_is_replaced_and_the_results_are_those_of_one_process(
    undisturbed_rows: pd.DataFrame, two_arms: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StudyConfig.model_validate(two_arms)
    killer = Killer("tune: control, seed 0", signal.SIGKILL, "ray::RayWorker")
    monkeypatch.chdir(tmp_path)  # a folder by a relative name is the same for workers
    with pytest.raises(KeyboardInterrupt):
        run_study(config, Path("run"), watcher=Interrupter(), on="ray", workers=2)
    assert not ray.is_initialized() and ended("ray::") and ended("raylet")
    handler = signal.getsignal(signal.SIGTERM)
    outcome = run_study(config, Path("run"), watcher=killer, on="ray", workers=2)
    assert killer.killed and not outcome.failures and signal.getsignal(signal.SIGTERM) is handler
    assert not ray.is_initialized() and ended("ray::")  # the cluster was its own
    pd.testing.assert_frame_equal(pd.read_parquet(outcome.folder / "facts.parquet"), undisturbed_rows)
    finished = [event["key"] for event in Store(outcome.folder).events() if event["event"] == "finished"]
    assert sorted(finished) == sorted(step.key for step in preview_study(config, outcome.folder).plan.steps)
    assert not list(outcome.folder.glob("steps/*/try-*"))


def test_interrupting_ends_the_workers_and_leaves_others_clusters_where_not_all_workers_need_find_room(
    undisturbed_rows: pd.DataFrame, two_arms: dict[str, Any], tmp_path: Path
) -> None:
    config = StudyConfig.model_validate(two_arms)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with pytest.raises(KeyboardInterrupt):
            run_study(config, tmp_path, watcher=Interrupter(), on="ray", workers=2)
        assert ray.is_initialized() and ended("ray::RayWorker")
        assert ends(tmp_path)["finished"] and not ends(tmp_path)["failed"]
        outcome = run_study(config, tmp_path, on="ray", workers=2)
        pd.testing.assert_frame_equal(pd.read_parquet(outcome.folder / "facts.parquet"), undisturbed_rows)
    finally:
        ray.shutdown()


def test_a_plan_for_a_cluster_is_made_and_priced_there_and_writes_nothing(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = StudyConfig.model_validate(settings)
    steps = plan_of(config, Store(tmp_path / "run")).steps
    monkeypatch.setattr("indelible.study.run.run.software", lambda: {"device": "another than the workers'"})
    preview = preview_study(config, tmp_path / "run", on="ray", each=Share(cpus=1))
    assert [step.key for step in preview.plan.steps] == [step.key for step in steps]  # so that what is done is known
    workers = re.search(r"runs of tuning, .* on (\d+) workers? of the cluster as it is now", preview.cost)
    assert workers is not None and int(workers[1]) >= 1 and "accelerator" not in preview.cost
    assert not (tmp_path / "run").exists() and not ray.is_initialized() and ended("ray::")


def test_room_is_counted_by_machine_and_said_where_there_is_none() -> None:
    machines = [{"CPU": 5.0, "GPU": 1.0, "memory": 8 * 2**30}, {"CPU": 8.0, "memory": 3 * 2**30}]
    assert room(machines, Share(cpus=2, gpus=0, memory=2)) == 2 + 1
    assert room(machines, Share(cpus=1, gpus=0.5, memory=2)) == 2
    with pytest.raises(ConfigError, match="room for a worker of 9 cores"):
        room(machines, Share(cpus=9, gpus=0, memory=2))


def test_a_machine_with_other_packages_or_without_the_folder_does_no_step(tmp_path: Path) -> None:
    worker, job = RayWorker(World("any", (), "any"), str(tmp_path / "elsewhere")), Any
    for expected, said in (({"torch": "1.0"}, "first worker"), (worker.software(), "does not see")):
        (kind, (error, _)), sizes = worker.do(job, expected, {}, None, 1)  # type: ignore[arg-type]
        assert kind == "failed" and said in str(error) and not sizes


def test_a_machine_whose_model_of_that_name_is_another_does_no_step(
    taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    worker = RayWorker(World(str(taught / "model"), (), "any"), str(tmp_path))
    other = ModelVersion("of other weights", "the same")
    (kind, (error, _)), sizes = worker.do(Job(Any, {}, tmp_path), worker.software(), {}, other, 1)  # type: ignore
    assert kind == "failed" and "has another model by the name" in str(error) and not sizes


def test_a_machine_that_would_quantise_by_another_library_does_no_step(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings["arms"] = [{"name": "arm", "editor": "none", "tuning": {"tuner": "qlora"}}]
    (step,) = (
        one for one in plan_of(StudyConfig.model_validate(settings), Store(tmp_path)).steps if one.kind == "tune"
    )
    planned = step.work.options
    monkeypatch.setattr("indelible.study.run.steps.tune.quantised_by", lambda: {"quantised": "nf4, bitsandbytes 0.1"})
    worker = RayWorker(World("any", (), "any"), str(tmp_path))
    (kind, (error, _)), sizes = worker.do(Job(step, {}, tmp_path), worker.software(), planned, None, 1)
    assert kind == "failed" and "with {'quantised': 'nf4, bitsandbytes 0.1'}" in str(error) and not sizes


def test_what_another_machine_wrote_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indelible.study.run.executors.ray_worker._ARRIVAL_SECONDS", 0.0)
    (tmp_path / "rows").write_text("half")
    await_files({tmp_path / "rows": 4, tmp_path: None})
    with pytest.raises(StoreError, match="not to be seen"):
        await_files({tmp_path / "rows": 8})
