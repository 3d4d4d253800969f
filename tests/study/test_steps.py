"""Steps are plain data, done in another process as in this one, and leave nothing behind but their files."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from indelible.errors import FactsError
from indelible.facts.choose import strata_counts
from indelible.models.fingerprint import fingerprint
from indelible.study.design.settings import StudyConfig
from indelible.study.run.base_model import LentModel
from indelible.study.run.kept import ROWS, chosen_bystanders
from indelible.study.run.run import Outcome, preview_study
from indelible.study.run.sources import candidate_facts
from indelible.study.run.step import Done, Job, Material, World, do_step
from indelible.study.run.steps.select import Select
from indelible.study.run.store import Store


def do_there(job: Job, world: World) -> Done:
    """What another process does with a job: it makes its own material."""
    return do_step(job, Material(world))


@pytest.fixture(scope="module")
def other_process() -> Iterator[ProcessPoolExecutor]:
    """A process that was not forked: it holds nothing of this one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


def trained_there() -> int:
    """How many optimizers that process still holds."""
    return sum(isinstance(one, torch.optim.Optimizer) for one in gc.get_objects())


SECONDS = ("seconds", "training_seconds", "fixed_seconds")


def contents(folder: Path) -> dict[str, Any]:
    """All that a step has kept, without the time that it took."""
    found: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    found.pop("step.json", None)
    if "tuning.json" in found:
        found["tuning.json"] = json.loads(found["tuning.json"]) | dict.fromkeys(SECONDS)
    return found


def test_every_step_of_an_arm_gives_the_same_files_there(
    undisturbed: Outcome, settings: dict[str, Any], tmp_path: Path, other_process: ProcessPoolExecutor
) -> None:
    config, store = StudyConfig.model_validate(settings), Store(undisturbed.folder)
    world = World(config.model, candidate_facts(config.facts), config.corpus)
    steps = preview_study(config, undisturbed.folder).plan.runs[1].steps
    assert [step.kind for step in steps] == ["select", "probe", "bystanders", "edit", "probe", "tune"]
    other_process.submit(gc.disable).result()  # Python collects cycles when it likes, which may be never
    for step in steps:
        folder = tmp_path / step.name
        folder.mkdir()
        inputs = {role: store.path(made) for role, made in step.inputs.items()}
        done = other_process.submit(do_there, Job(step, inputs, folder), world).result()
        assert done.note == store.record_of(step)["found"]
        assert contents(folder) == contents(store.path(step))
    assert other_process.submit(trained_there).result() == 0


def test_records_say_how_firmly_facts_are_held_and_what_is_preserved(
    undisturbed: Outcome, settings: dict[str, Any]
) -> None:
    config, store = StudyConfig.model_validate(settings), Store(undisturbed.folder)
    steps = preview_study(config, undisturbed.folder).plan.runs[1].steps
    for step in (step for step in steps if step.kind == "probe"):
        rows = pd.read_parquet(store.path(step) / ROWS)
        right = rows[(rows["kind"] == "prompt") & rows["success"]]
        found = {name: strata_counts(group["probability"]) for name, group in right.groupby("fact_set")}
        assert store.record_of(step)["strata"] == found and "intrinsic" in found
    (step,) = (step for step in steps if step.kind == "bystanders")
    apart = store.record_of(step)["relation_apart"]
    relations = {fact.relation for fact in chosen_bystanders(store.path(step))}
    assert relations == {"capital", "language"} - {apart} and len(relations) == 1


def test_what_goes_wrong_there_is_told_here(
    undisturbed: Outcome, settings: dict[str, Any], tmp_path: Path, other_process: ProcessPoolExecutor
) -> None:
    config = StudyConfig.model_validate(settings)
    world = World(config.model, candidate_facts(config.facts), config.corpus)
    step = preview_study(config, undisturbed.folder).plan.steps[0]
    assert isinstance(step.work, Select)
    job = Job(replace(step, work=replace(step.work, n_intrinsic=500)), {}, tmp_path)
    error = other_process.submit(do_there, job, world).exception()
    assert isinstance(error, FactsError) and "24 known facts" in error.what and error.fix


def test_a_step_leaves_the_base_model_as_it_was_also_when_it_fails(taught: Path) -> None:
    lent = LentModel(str(taught / "model"), lambda note: None)
    with pytest.raises(RuntimeError, match="broke"), lent.base_model() as model:
        model.train()
        for weight in model.parameters():
            weight.requires_grad_(False)
        with torch.no_grad():
            next(iter(model.parameters())).fill_(float("nan"))
            model.lm_head.weight.add_(1.0)
        model.forward = lambda **inputs: None  # as mixed precision does
        raise RuntimeError("broke")
    with lent.base_model() as model:
        assert fingerprint(model) == lent.fingerprint
        assert not model.training
        assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
        assert "forward" not in vars(model)
