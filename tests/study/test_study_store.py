"""The run folder: finished steps are whole, nothing is lost, and trouble with the disk is told in one line."""

from __future__ import annotations

import errno
import json
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from indelible.errors import StoreError
from indelible.report.results import read_results, seal_results
from indelible.study.design.config import load_config, parse_config
from indelible.study.design.settings import StudyConfig
from indelible.study.run.step import Step
from indelible.study.run.steps.bystanders import ChooseBystanders
from indelible.study.run.store import Store

STEP = Step(ChooseBystanders(1), 0, {}, "0123456789abcdef" * 4, "choose bystanders, seed 0")
OTHER = replace(STEP, key="f" * 64)


def config(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate({"name": "a", "model": "m", "arms": [{"name": "x", "editor": "none"}], **changes})


def keep(store: Store, step: Step = STEP, **record: Any) -> None:
    """Make the step finished."""
    with store.keeping(step) as (job, extra):
        (job.folder / "rows.txt").write_text("42")
        extra.update(record)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".writing-")]


def test_a_finished_step_is_whole_and_known_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    with store.open(config()):
        assert not store.has(STEP)
        keep(store, versions={"python": "3"})
    again = Store(tmp_path / "run")
    assert again.has(STEP) and not again.has(replace(STEP, key=STEP.key[:16] + "f" * 48))
    assert (again.path(STEP) / "rows.txt").read_text() == "42"
    record = json.loads((again.path(STEP) / "step.json").read_text())
    assert record["key"] == STEP.key
    assert record["options"] == {"count": 1}
    assert record["versions"] == {"python": "3"}
    assert not leftovers(tmp_path)


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    """Also in a folder that has not got its settings yet, which is not taken for somebody else's."""
    (tmp_path / "steps" / ".writing-edit-1-99").mkdir(parents=True)
    (tmp_path / ".writing-99-config.yaml").write_text("half")
    figures = tmp_path / ".writing-k3xw" / "figures"  # a report was being written, which takes a folder
    figures.mkdir(parents=True)
    (figures / "overview.svg").write_text("half")
    with Store(tmp_path).open(config()):
        assert not leftovers(tmp_path)


def test_failures_are_noted_and_forgotten_after_success(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open(config()):
        store.keep_failure(STEP, "went wrong", "trace")
        failed = list((tmp_path / "failed").iterdir())
        assert json.loads(failed[0].read_text())["error"] == "went wrong"
        keep(store)
    assert not list((tmp_path / "failed").iterdir())
    with (tmp_path / "events.jsonl").open("a") as file:
        # a damaged line costs only itself
        file.write('[]\n{}\n{"event": "opened", "time": NaN, "pid": 1}\n{"event": "star')
    with store.open(config()):
        pass
    said = [event["event"] for event in store.events()]
    assert said == ["opened", "failed", "finished", "closed", "opened", "closed"]


def test_a_folder_says_where_its_study_stands(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.standing() is None and not list(tmp_path.iterdir())
    with store.open(config()):
        store.record("planned", None, steps=2)
        keep(store)
        found = store.standing()
        assert found is not None and (found.name, found.model) == ("a", "m")
        assert (found.done, found.of, found.state) == (1, 2, "running")
    with pytest.raises(KeyboardInterrupt), store.open(config()):
        store.record("reused", STEP)
        raise KeyboardInterrupt
    assert (found := store.standing()) and (found.done, found.of, found.state) == (1, None, "stopped")
    with store.open(config()):
        store.record("planned", None, steps=2)
        store.record("reused", STEP)
        store.keep_failure(OTHER, "went wrong", "trace")
    assert (found := store.standing()) and (found.done, found.of, found.state) == (1, 2, "failed")
    assert found.report is None


def test_another_study_is_refused_by_the_first_key_that_differs_once_a_step_is_finished(tmp_path: Path) -> None:
    with Store(tmp_path).open(config(tuning={"steps": 2})):
        pass
    with (store := Store(tmp_path)).open(config(tuning={"steps": 3})):
        keep(store)
    with pytest.raises(StoreError, match=r"'tuning.steps' differs.*--update"):
        Store(tmp_path).check_config(config(tuning={"steps": 4}))
    with Store(tmp_path).open(config(tuning={"steps": 4}), update=True):
        pass
    Store(tmp_path).check_config(config(tuning={"steps": 4}, most_runs=20_000))  # which changes no result


def test_a_key_that_an_older_version_did_not_know_stands_at_its_default(tmp_path: Path) -> None:
    with Store(tmp_path).open(config()):
        keep(Store(tmp_path))
    kept = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    del kept["explain"], kept["arms"][0]["delta"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(kept), encoding="utf-8")
    Store(tmp_path).check_config(config())
    with pytest.raises(StoreError, match="'explain' differs"):
        Store(tmp_path).check_config(config(explain=True))


def test_a_run_says_nothing_of_where_it_lies_and_moves(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("model", "data", "other"):
        (home / name).mkdir(parents=True)
        (home / name / "facts.jsonl").touch()
    study = {"model": "model", "corpus": "c.txt", "facts": {"edited": "data/facts.jsonl", "source": "world"}}
    study |= {"tuning": {"data": {"source": "data/facts.jsonl"}}, "arms": [{"name": "x", "editor": "rome"}]}
    text = yaml.safe_dump(config(**study).as_dict())
    with (store := Store(home / "runs" / "a")).open(made := parse_config(text, "s", home)):
        keep(store)
    assert made.facts.edited == str(home / "data" / "facts.jsonl")
    for path in store.folder.rglob("*"):
        written = "" if path.is_dir() else path.read_text(encoding="utf-8")
        assert str(tmp_path) not in written and f'"{socket.gethostname()}"' not in written, path
    home.rename(home := tmp_path / "moved")  # all of it
    (folder := home / "runs" / "a").rename(alone := tmp_path / "archive")  # and the run alone
    shutil.copytree(alone, folder)
    again = load_config(str(folder / "config.yaml"))
    assert again == parse_config(text, "s", home) and again.model == str(home / "model")
    for run in (folder, alone):
        seal_results(run)
        with Store(run).open(again):  # which may be stopped: settings that it wrote itself are no damage
            assert read_results(run) == {}
    other = yaml.safe_load(text) | {"facts": {"edited": "other/facts.jsonl"}}
    with pytest.raises(StoreError, match=r"'facts.edited' differs"):
        Store(folder).check_config(parse_config(yaml.safe_dump(other), "s", home))


def test_results_of_other_settings_do_not_stand_beside_the_new_ones(tmp_path: Path) -> None:
    store = Store(tmp_path)
    results = [tmp_path / name for name in ("facts.parquet", "summary.json", "report.html", "figures", "tables")]
    with store.open(config(tuning={"steps": 3})):
        keep(store)
        for path in results:
            path.write_text("old") if path.suffix else path.mkdir()
    with store.open(config(tuning={"steps": 3})):
        assert all(path.exists() for path in results)
    with store.open(config(tuning={"steps": 4}), update=True):
        assert not any(path.exists() for path in results)
        assert store.has(STEP)


@pytest.mark.parametrize(
    ("name", "damage"),
    [("step.json", ""), ("step.json", "{"), ("step.json", "[]"), ("rows.txt", "43"), ("rows.txt", None)],
)
def test_a_damaged_step_is_done_again(tmp_path: Path, name: str, damage: str | None) -> None:
    store = Store(tmp_path)
    with store.open(config()):
        keep(store)
        file = store.path(STEP) / name
        file.unlink() if damage is None else file.write_text(damage)
        assert not store.has(STEP)
        keep(store)
        assert store.has(STEP)
    assert not leftovers(tmp_path)


def test_what_was_built_on_something_else_is_not_kept(tmp_path: Path) -> None:
    store, later = Store(tmp_path), replace(OTHER, inputs={"select": STEP})
    with store.open(config()):
        keep(store)
        keep(store, later)
        assert store.has(later)
        with store.keeping(STEP) as (job, _):
            (job.folder / "rows.txt").write_text("43")
        assert store.has(STEP) and not store.has(later)
        keep(store)  # as it was
        assert store.has(later)
        (store.path(STEP) / "rows.txt").write_text("44")
        assert not store.has(later)
        with pytest.raises(StoreError, match=r"rows\.txt of .* changed while the study ran"), store.keeping(later):
            pass


def test_of_another_folder_only_what_was_built_on_the_same_is_taken(tmp_path: Path) -> None:
    mine, alike, unlike = (Store(tmp_path / name) for name in ("mine", "alike", "unlike"))
    later = replace(OTHER, inputs={"select": STEP})
    for store, said in ((alike, "42"), (unlike, "43")):
        with store.open(config()):
            with store.keeping(STEP) as (job, _):
                (job.folder / "rows.txt").write_text(said)
            keep(store, later)
    with mine.open(config()):
        keep(mine)
        assert mine.take(unlike, [STEP, later]) == 0 and not mine.has(later)
        assert mine.take(alike, [STEP, later]) == 1 and mine.has(later)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="no study's"), Store(tmp_path).open(config()):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_settings_that_were_lost_cost_no_step(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open(config()):
        keep(store)
        (tmp_path / "report.html").write_text("of other settings, for all that is known")
    (tmp_path / "config.yaml").unlink()
    with store.open(config()):
        assert store.has(STEP) and not (tmp_path / "report.html").exists()


def test_a_clock_that_is_set_back_makes_no_time_negative_and_spares_no_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = count(20_000, -1)
    monkeypatch.setattr(time, "time", lambda: next(days) * 86_400.0)
    store = Store(tmp_path)
    (tmp_path / "steps" / ".writing-edit-1-99").mkdir(parents=True)
    with store.open(config()):
        assert not leftovers(tmp_path)
        keep(store)
    assert 0 <= store.record_of(STEP)["seconds"] < 60
    times = [event["time"] for event in store.events()]
    assert times == sorted(times, reverse=True) and 0 <= store.events()[1]["seconds"] < 60


def test_a_damaged_line_of_the_record_is_not_taken_for_what_happened(tmp_path: Path) -> None:
    store, path = Store(tmp_path), tmp_path / "events.jsonl"
    with store.open(config()):
        store.record("planned", None, steps=2)
        keep(store)
    whole = path.read_text()
    path.write_text(whole.replace('"steps": 2', '"steps": 3').replace("finished", "finishee"))
    assert (found := store.standing()) and (found.done, found.of, found.unreadable) == (0, None, 2)
    for key in ("seal", "format"):
        path.write_text(whole.replace(f'"{key}"', f'"{key[:-1]}m"', 1))
        assert (found := store.standing()) and found.unreadable == 1
    older = re.sub(', "format": 2|, "seal": "[0-9a-f]+"', "", whole)  # of a version that sealed none
    path.write_text(older)
    assert (found := store.standing()) and (found.done, found.of, found.unreadable) == (1, 2, 0)


def test_a_damaged_config_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(StoreError, match="damaged"):
        Store(tmp_path).check_config(config())


def test_two_processes_cannot_run_one_folder(tmp_path: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from indelible.study.run.store import Store;"
        "from indelible.study.design.settings import StudyConfig;"
        "config = StudyConfig.model_validate_json(sys.argv[2]);"
        "\nwith Store(Path(sys.argv[1])).open(config): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path), config().model_dump_json(by_alias=True)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=rf"number {process.pid}\)"), Store(tmp_path).open(config()):
            pass
    finally:
        process.kill()
        process.communicate()
    with Store(tmp_path).open(config()):  # the dead process's lock is no lock
        pass


def test_a_step_that_breaks_off_or_fills_the_disk_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.open(config()):
        keep(store)
        for error, kind, said in (
            (ValueError("broke off"), ValueError, "broke off"),
            (OSError(errno.ENOSPC, "No space left on device"), StoreError, "disk that holds .* is full"),
        ):
            with pytest.raises(kind, match=said), store.keeping(OTHER) as (job, _):
                (job.folder / "rows.txt").write_text("42")
                raise error
        assert store.has(STEP) and not store.has(OTHER)
        assert not leftovers(tmp_path)
