"""The step that explains losses: when it is planned, what it keeps and finds, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from indelible.edits.deltas.delta import Edit
from indelible.errors import ConfigError
from indelible.models.layout import find_layout
from indelible.models.load import load
from indelible.study.design.arms import resolve_arms
from indelible.study.design.config import load_config
from indelible.study.design.settings import StudyConfig
from indelible.study.run.plan import Plan, make_plan
from indelible.study.run.run import Outcome, preview_study, run_study
from indelible.study.run.step import Versions
from indelible.study.run.store import Store
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.why.explain import kept_weights
from indelible.why.shares import mask_forecast, shares
from tiny_studies import study_settings

VERSIONS = Versions(model="m", tokenizer="t", software={}, facts="f", corpus="c", tasks="k")


def config_of(settings: dict[str, Any], **changes: Any) -> StudyConfig:
    return StudyConfig.model_validate({**settings, **changes})


def plan_of(config: StudyConfig) -> Plan:
    return make_plan(config, resolve_arms(config), VERSIONS)


def explaining(settings: dict[str, Any], *arms: str) -> dict[str, Any]:
    return {
        **settings,
        "arms": [arm | ({"explain": True} if arm["name"] in arms else {}) for arm in settings["arms"]],
    }


def prompts(outcome: Outcome, phase: str) -> pd.DataFrame:
    rows = pd.read_parquet(outcome.folder / "facts.parquet")
    chosen = rows[(rows["phase"] == phase) & (rows["kind"] == "prompt")]
    return chosen.set_index(["arm", "fact_set", "fact_id"])[["success", "first_token", "log_prob"]].sort_index()


@pytest.fixture(scope="module")
def explained(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The tiny study, of edits that succeed and tuning that hurts; don't change its folder in a test, it is shared."""
    settings = study_settings(taught)
    settings |= {"explain": True, "editors": {"ft-m": {"steps": 60, "learning_rate": 0.01}}}
    settings["tuning"] |= {"learning_rate": 5e-3}
    settings["arms"] = [
        {"name": "plain", "editor": "ft-m"},
        {"name": "frozen", "editor": "ft-m", "mask": "edited-layers"},
        {"name": "control", "editor": "none"},
    ]
    return run_study(StudyConfig.model_validate(settings), tmp_path_factory.mktemp("explained") / "run")


def test_only_explained_arms_get_the_step_and_other_keys(settings: dict[str, Any]) -> None:
    without = plan_of(config_of(settings))
    one = plan_of(config_of(explaining(settings, "memit")))
    added = [step for step in one.steps if step.key not in {other.key for other in without.steps}]
    assert [step.title for step in added] == ["tune: memit, seed 0", "explain: memit, seed 0"]
    run = next(run for run in one.runs if run.arm.name == "memit")
    assert run.explain == added[1]
    assert added[1].inputs == {"select": run.select, "edit": run.edit, "tune": run.tunes[0]}
    assert all(run.explain is None for run in one.runs if run.arm.name != "memit")
    assert not any(step.kind == "explain" for step in without.steps)


def test_arms_that_cannot_be_explained_say_so(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"'arms.control.explain' is set, but the arm edits nothing"):
        plan_of(config_of(explaining(settings, "control")))
    settings["arms"][0] |= {"protocol": "isolated", "explain": True}
    with pytest.raises(ConfigError, match=r"'arms.memit.explain' is set, but the arm has a copy for every edit"):
        plan_of(config_of(settings))
    # What holds for the whole study leaves out where it cannot be, and arms speak louder than it.
    settings["arms"][0]["explain"] = None
    settings["arms"].append({"name": "silent", "editor": "ft", "explain": False})
    titles = [step.title for step in plan_of(config_of(settings, explain=True)).steps if step.kind == "explain"]
    assert titles == ["explain: memit-frozen, seed 0"]


def test_both_ends_are_the_exams_of_the_study(explained: Outcome) -> None:
    assert explained.failures == ()
    rows = pd.read_parquet(explained.folder / "shares.parquet")
    assert set(rows["arm"]) == {"plain", "frozen"} and set(rows["seed"]) == {0}
    for arm, own in rows.groupby("arm"):
        whole = max(own["mixture"].unique(), key=lambda name: (name != "none", name.count("+")))
        for mixture, phase in (("none", "edited"), (whole, "tuned")):
            asked = own[own["mixture"] == mixture].set_index(["arm", "fact_set", "fact_id"]).sort_index()
            expected = prompts(explained, phase).loc[[arm]]
            # The study asked more questions at a time: equal but for rounding.
            pd.testing.assert_frame_equal(asked[list(expected.columns)], expected, rtol=1e-4)


def test_what_a_mask_froze_takes_no_part(explained: Outcome) -> None:
    rows = pd.read_parquet(explained.folder / "shares.parquet")
    groups = {
        arm: {group for name in own["mixture"].unique() for group in name.split("+")} - {"none"}
        for arm, own in rows.groupby("arm")
    }
    assert groups["plain"] - groups["frozen"] == {"projections", "beside"}
    assert groups["frozen"]


def test_shares_and_forecasts_come_from_the_runs_table(explained: Outcome) -> None:
    rows = pd.read_parquet(explained.folder / "shares.parquet")
    retention = {line["arm"]: line for line in explained.summary}
    found = shares(rows, draws=200)
    for (arm, fact_set), part in found.groupby(["arm", "fact_set"]):
        lost = 1 - retention[str(arm)][f"retention_{fact_set}"]
        assert part["share"].sum() == pytest.approx(lost, abs=1e-12)
    assert found[found["fact_set"] == "edited"].groupby("arm")["share"].sum()["plain"] > 0
    forecast = mask_forecast(rows, draws=200).set_index(["arm", "mask"])["retention_edited"]
    assert forecast[("plain", "none")] == pytest.approx(retention["plain"]["retention_edited"])


def test_drift_is_kept_for_every_edited_fact(explained: Outcome) -> None:
    drift = pd.read_parquet(explained.folder / "drift.parquet")
    assert drift.groupby(["arm", "quantity"])["fact_id"].nunique().eq(4).all()
    keys = drift[(drift["quantity"] == "key") & (drift["arm"] == "plain")]
    assert keys["cosine"].between(-1, 1).all() and (keys["cosine"] < 1).any()
    # In the frozen arm W is the same, so that what its outputs turned by is what their keys did.
    frozen = drift[drift["arm"] == "frozen"].pivot_table(
        "cosine", ["fact_id", "parameter"], "quantity", aggfunc="first"
    )
    assert frozen["output_by_weight"].to_list() == pytest.approx([1.0] * len(frozen), abs=1e-12)
    assert frozen["output"].to_list() == frozen["output_by_key"].to_list()
    assert "What moved under the edits" in (explained.folder / "report.html").read_text(encoding="utf-8")


def test_the_weights_that_tuning_changed_are_kept_with_it(explained: Outcome, taught: Path) -> None:
    config = load_config(str(explained.folder / "config.yaml"))
    store = Store(explained.folder)
    loaded = load(str(taught / "model"))
    plan = preview_study(config, explained.folder).plan
    for run in plan.runs:
        folder = store.path(run.tunes[0])
        if run.arm.name == "control":
            assert not (folder / "weights.safetensors").exists()
            continue
        weights = kept_weights(folder)
        assert run.edit is not None
        edit = Edit.load(store.path(run.edit) / "edit.safetensors")
        frozen = frozen_parameters(run.arm.mask, loaded.model, find_layout(loaded.model), edit.parameters)
        assert not frozen & weights.keys()
        assert all(weight.dtype == torch.float32 for weight in weights.values())
        with edit.applied(loaded.model):
            assert all(not torch.equal(weight, loaded.model.get_parameter(name)) for name, weight in weights.items())


def test_tables_of_arms_that_are_explained_no_longer_go(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["arms"] = settings["arms"][:1]
    folder = tmp_path / "run"
    run_study(config_of(explaining(settings, "memit")), folder)
    assert (folder / "shares.parquet").is_file() and (folder / "drift.parquet").is_file()
    run_study(config_of(settings), folder, update=True)
    assert not (folder / "shares.parquet").exists() and not (folder / "drift.parquet").exists()


def test_edits_beside_the_weights_are_explained_too(settings: dict[str, Any], tmp_path: Path) -> None:
    arms = [
        {"name": "grace", "editor": "grace", "options": {"layer": 1}},
        {"name": "ike", "editor": "ike", "options": {"copies": 1}},
    ]
    settings["tuning"]["max_tokens"] = 64  # beside the context
    outcome = run_study(config_of(settings, arms=arms, explain=True), tmp_path / "run")
    assert outcome.failures == ()
    rows = pd.read_parquet(outcome.folder / "shares.parquet")
    names = {arm: set("+".join(own["mixture"].unique()).split("+")) - {"none"} for arm, own in rows.groupby("arm")}
    assert names == {"grace": {"below", "beside", "above", "head"}, "ike": {"embeddings", "layers", "head"}}
    expected = prompts(outcome, "edited").loc[["ike"]]
    asked = rows[(rows["arm"] == "ike") & (rows["mixture"] == "none")].set_index(["arm", "fact_set", "fact_id"])
    pd.testing.assert_frame_equal(asked.sort_index()[list(expected.columns)], expected, rtol=1e-4)
    drift = pd.read_parquet(outcome.folder / "drift.parquet")
    assert set(drift[drift["arm"] == "ike"]["quantity"]) == {"state", "head_row"}
