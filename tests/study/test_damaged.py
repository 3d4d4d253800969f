"""Finished steps whose files were damaged afterwards: found, set aside by name, and done again to the same rows."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from indelible.progress import Watcher
from indelible.study.design.settings import StudyConfig
from indelible.study.run.passing import set_damaged_aside
from indelible.study.run.plan import Plan
from indelible.study.run.run import Outcome, preview_study, run_study
from indelible.study.run.store import Store


class Listening(Watcher):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def finished(undisturbed: Outcome, tmp_path: Path) -> Path:
    """A copy of the finished study."""
    return Path(shutil.copytree(undisturbed.folder, tmp_path / "run"))


@pytest.fixture
def plan(undisturbed: Outcome, settings: dict[str, Any]) -> Plan:
    return preview_study(StudyConfig.model_validate(settings), undisturbed.folder).plan


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_no_flipped_bit_cut_or_loss_in_any_file_of_a_step_goes_unnoticed(finished: Path, plan: Plan) -> None:
    store, chance = Store(finished), random.Random(0)
    assert all(store.has(step) for step in plan.steps)
    disturbed = 0
    for step in plan.steps:
        for path in [path for path in store.path(step).rglob("*") if path.is_file()]:
            whole = path.read_bytes()
            harms: list[Callable[[], None]] = [path.unlink, lambda: path.write_bytes(b"")]  # noqa: B023
            harms += [lambda: path.write_bytes(whole[: len(whole) // 2])]  # noqa: B023
            bits = chance.sample(range(8 * len(whole)), 12)
            harms += [lambda bit=bit: flip(path, bit) for bit in bits]  # noqa: B023
            for harm in harms:
                harm()
                assert store.damaged(step) == [path.name] and not store.has(step), (path, harm)
                path.write_bytes(whole)
                disturbed += 1
        assert store.has(step)
    assert disturbed > 300


def test_what_is_damaged_is_set_aside_and_done_again_and_what_comes_out_as_before_costs_nothing_more(
    finished: Path, undisturbed: Outcome, settings: dict[str, Any], plan: Plan
) -> None:
    store, run = Store(finished), plan.runs[0]
    facts = store.path(run.select) / "facts.json"
    facts.write_text(facts.read_text(encoding="utf-8").replace('"Peru"', '"Perm"', 1), encoding="utf-8")
    assert run.edit is not None and run.edited is not None
    flip(store.path(run.edit) / "edit.safetensors", 9_000)
    (store.path(run.edited) / "rows.parquet").write_bytes(b"PAR1")
    (store.path(run.base) / "step.json").unlink()
    (store.path(run.tunes[0]) / "tuning.json").write_text("")
    (finished / "model.json").write_text((finished / "model.json").read_text().replace("fingerprint", "fingerprinz"))
    before, watcher = len(store.events()), Listening()
    outcome = run_study(StudyConfig.model_validate(settings), finished, watcher=watcher)
    assert outcome.failures == ()
    aside = finished / "damaged" / run.select.name
    assert f"choose facts, seed 0: damaged (facts.json), set aside in {aside}; it is done again" in watcher.notes
    assert "Perm" in (aside / "facts.json").read_text(encoding="utf-8")
    assert sum("set aside" in note for note in watcher.notes) == 5
    happened = [(event["event"], event["step"]) for event in store.events()[before:] if "step" in event]
    harmed = {step.name for step in (run.select, run.edit, run.edited, run.base, run.tunes[0])}
    assert {step for event, step in happened if event == "finished"} == harmed
    assert {step for event, step in happened if event == "reused"} == {step.name for step in plan.steps} - harmed
    expected = pd.read_parquet(undisturbed.folder / "facts.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(finished / "facts.parquet"), expected)


def test_runs_of_older_versions_still_open_and_say_that_they_kept_no_hashes(finished: Path, plan: Plan) -> None:
    store = Store(finished)
    for step in plan.steps:
        folder = store.path(step)
        record = json.loads((folder / "step.json").read_text())
        del record["sha256"], record["built_on"], record["seal"]
        record["files"] = {path.name: path.stat().st_size for path in folder.iterdir() if path.name != "step.json"}
        (folder / "step.json").write_text(json.dumps(record))
    assert all(store.has(step) for step in plan.steps)
    (said,) = set_damaged_aside(store, plan)
    assert said.startswith(f"{len(plan.steps)} finished steps of an older version kept no hashes")
    select = store.path(plan.runs[0].select)
    (select / "facts.json").write_text("{}")
    assert store.damaged(plan.runs[0].select) == ["facts.json"]
    assert not any(store.has(step) for step in plan.steps)
