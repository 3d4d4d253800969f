"""Each fact in a copy of its own: tuned and asked by itself, or with one run's change of weights put under all."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import WeightUpdate
from indelible.exam.exam import take_exam
from indelible.exam.questions import questions_for
from indelible.models.load import load
from indelible.study.design.settings import StudyConfig
from indelible.study.run.run import Outcome, run_study
from indelible.why.explain import kept_weights
from tiny_studies import study_settings

EDITS = 3


@pytest.fixture(scope="module")
def isolated(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Two arms, one of them isolated."""
    settings = study_settings(taught)
    settings["facts"] |= {"n_edits": EDITS, "n_intrinsic": 5}
    settings["tuning"]["stop_at"] = {"loss": 0.001}
    settings["arms"] = [
        {"name": "apart", "editor": "memit", "protocol": "isolated"},
        {"name": "together", "editor": "memit"},
    ]
    return run_study(StudyConfig.model_validate(settings), tmp_path_factory.mktemp("isolated") / "run")


def test_each_copy_is_asked_about_its_own_edit_and_all_intrinsic_facts(isolated: Outcome) -> None:
    assert isolated.failures == ()
    rows = pd.read_parquet(isolated.folder / "facts.parquet")
    apart = rows[(rows["arm"] == "apart") & (rows["kind"] == "prompt") & (rows["phase"] != "tuning")]
    edited = apart[apart["fact_set"] == "edited"]
    assert set(edited.groupby("copy")["fact_id"].nunique()) == {1}
    assert edited["fact_id"].nunique() == EDITS
    for _, own in apart[apart["fact_set"] == "intrinsic"].groupby(["copy", "phase"]):
        assert len(own) == 5
    assert set(apart["copy"]) == set(range(EDITS))
    assert set(rows.loc[rows["arm"] == "together", "copy"]) == {0}


def test_a_copy_holds_one_edit_and_copies_are_tuned_apart(isolated: Outcome) -> None:
    (folder,) = isolated.folder.glob("steps/edit-*/edits")
    held = [Edit.load(one).facts for one in sorted(folder.iterdir())]
    assert [len(facts) for facts in held] == [1] * EDITS
    rows = pd.read_parquet(isolated.folder / "facts.parquet")
    asked = rows[(rows["arm"] == "apart") & (rows["fact_set"] == "edited")].groupby("copy")["fact_id"].first()
    assert list(asked) == [facts[0].id for facts in held]
    tuned = rows[(rows["arm"] == "apart") & (rows["phase"] == "tuned") & (rows["fact_set"] == "intrinsic")]
    chances = tuned[tuned["kind"] == "prompt"].pivot(index="fact_id", columns="copy", values="log_prob")
    figures = pd.read_parquet(isolated.folder / "runs.parquet").set_index("arm")["figures"].map(json.loads)
    assert list(figures["apart"]) == [str(copy) for copy in range(EDITS)] and list(figures["together"]) == ["0"]
    assert len({tuple(of_copy.values()) for of_copy in figures["apart"].values()}) == EDITS
    assert (chances.nunique(axis=1) == EDITS).all()  # other weights were edited, so that each copy came out differently


def test_an_arm_is_one_line_of_the_run_table_and_of_the_summary(isolated: Outcome) -> None:
    runs = pd.read_parquet(isolated.folder / "runs.parquet").set_index("arm")
    assert list(runs.index) == ["apart", "together"]
    assert runs.loc["apart", "status"] == "done"
    assert runs.loc["apart", "tokens"] > 2 * runs.loc["together", "tokens"]
    assert not runs.loc["apart", "reached"]
    (folder,) = isolated.folder.glob("steps/edit-*/edits")
    changes = [edit.deltas for one in folder.iterdir() if isinstance(edit := Edit.load(one), WeightUpdate)]
    for name, norm in json.loads(runs.loc["apart", "update_norms"]).items():
        sizes = [float(deltas[name].difference().norm()) for deltas in changes]
        assert len(sizes) == EDITS and norm == pytest.approx(sum(sizes) / EDITS, rel=1e-5)
    shares = [share for one in folder.iterdir() for share in Edit.load(one).manifest.arrived.values()]
    assert len(shares) == EDITS and runs.loc["apart", "arrived"] == pytest.approx(sum(shares) / EDITS)
    apart = isolated.summary[0]
    assert (apart["n_edits"], apart["n_intrinsic"], apart["seeds"]) == (EDITS, 5, 1)
    assert apart["retention_intrinsic"] is not None


def test_a_task_vector_is_the_controls_change_of_weights_under_each_edit(
    taught: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = study_settings(taught)
    settings["facts"] |= {"n_edits": EDITS, "n_intrinsic": 5}
    settings["arms"] = [
        {"name": "probe", "editor": "memit", "protocol": "task-vector"},
        {"name": "probe frozen", "editor": "memit", "protocol": "task-vector", "mask": "edited-layers"},
        {"name": "control", "editor": "none"},
    ]
    outcome = run_study(StudyConfig.model_validate(settings), tmp_path_factory.mktemp("vector") / "run")
    assert outcome.failures == ()
    rows = pd.read_parquet(outcome.folder / "facts.parquet")
    tuned = rows[(rows["arm"] == "probe") & (rows["phase"] == "tuned")]
    assert set(tuned["copy"]) == set(range(EDITS)) and (tuned["step"] == settings["tuning"]["steps"]).all()

    # One run of tuning serves the probe and the control; the frozen one is another, which left the edited layer alone.
    runs = {len(kept_weights(path)): path for path in outcome.folder.glob("steps/tune-*")}
    assert len(runs) == 2
    whole, frozen = (kept_weights(runs[size]) for size in sorted(runs, reverse=True))
    (edits,) = outcome.folder.glob("steps/edit-*/edits")
    edit = Edit.load(edits / "0001.safetensors")
    assert isinstance(edit, WeightUpdate)
    (name,) = edit.parameters
    assert name in whole and name not in frozen

    # By hand: the tuned base model's weights, the edit on top, the copy's own fact.
    (model, tokenizer) = (loaded := load(str(taught / "model"))).model, loaded.tokenizer
    with torch.no_grad():
        for parameter, weight in whole.items():
            model.get_parameter(parameter).copy_(weight)
    edit.install(model)
    (answer,) = take_exam(model, tokenizer, questions_for(edit.facts, "edited")[:1])
    own = tuned[(tuned["copy"] == 1) & (tuned["fact_set"] == "edited") & (tuned["kind"] == "prompt")]
    assert own["log_prob"].item() == pytest.approx(answer.log_prob, abs=1e-5)
