"""A study that asks further kinds of questions: what it adds to the rows, and what it leaves as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from indelible.errors import ConfigError, ModelError
from indelible.exam.kind import PLAIN
from indelible.study.design.arms import resolve_arms
from indelible.study.design.settings import FactsSettings, StudyConfig
from indelible.study.run.cost import Speed
from indelible.study.run.run import Outcome, preview_study, run_study
from indelible.study.run.steps.add_vector import AddVector
from indelible.study.run.steps.probe import Probe
from indelible.study.run.store import Store

ALSO = ["negation", "two-choice", "old-object"]
QUESTION = ["arm", "phase", "step", "fact_set", "fact_id", "kind", "wording"]


def test_without_further_kinds_a_step_is_what_it_was(settings: dict[str, Any], tmp_path: Path) -> None:
    assert Probe("base", False).options == {"phase": "base", "published": False, "isolated": False}
    assert AddVector(False).options == {"published": False}
    assert Probe("base", False, also=("negation",)).options["also"] == {"negation": 1}
    facts, speed = FactsSettings(n_edits=4, n_intrinsic=8, held_out=2, neighbours=3), Speed(question=1.0)
    assert Probe("edited", False).cost(facts, speed).seconds == 4 * 6 + 8 * 3
    assert Probe("edited", False, also=("negation",)).cost(facts, speed).seconds == 4 * 6 + 8 * 3 + 12
    tune = preview_study(StudyConfig.model_validate(settings), tmp_path / "run").plan.runs[0].tunes[0]
    assert "also" not in tune.work.options


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exam": {"also": ["two-choise"]}}, "Unknown kind of question 'two-choise' in 'exam.also'.*two-choice"),
        ({"exam": {"also": ["prompt"]}}, "Unknown kind of question 'prompt'"),
    ],
)
def test_what_no_study_can_ask_is_refused(settings: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve_arms(StudyConfig.model_validate(settings | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"exam": {"also": ["chat", "chat"]}}, "'chat' is listed twice"),
        ({"exam": {"also": ["negation"]}, "as_published": True}, "as_published has no exam.also"),
    ],
)
def test_what_contradicts_itself_is_refused(settings: dict[str, Any], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        StudyConfig.model_validate(settings | changes)


def test_a_chat_that_the_model_has_no_format_for_is_refused_while_planning(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    config = StudyConfig.model_validate(settings | {"exam": {"also": ["chat"]}})
    with pytest.raises(ModelError, match="'chat': the model's tokenizer has no chat template"):
        preview_study(config, tmp_path / "run")
    with pytest.raises(ModelError, match="no chat template"):
        run_study(config, tmp_path / "run")
    assert not list((tmp_path / "run" / "steps").iterdir())


@pytest.fixture(scope="module")
def further(undisturbed: Outcome, taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The undisturbed study's first arm, taken up again with further kinds."""
    folder = tmp_path_factory.mktemp("further") / "run"
    shutil.copytree(undisturbed.folder, folder)
    settings = Store(folder).config_dict()
    assert settings is not None
    settings |= {"exam": {**settings["exam"], "also": ALSO}, "arms": settings["arms"][:1]}
    return run_study(StudyConfig.model_validate(settings), folder, update=True)


def test_only_what_asks_is_done_again(further: Outcome) -> None:
    assert further.failures == ()
    events = Store(further.folder).events()
    last = max(place for place, event in enumerate(events) if event["event"] == "opened")
    done = {event["title"]: event["event"] for event in events[last:] if "title" in event}
    assert {title.partition(",")[0]: event for title, event in done.items()} == {
        "choose facts": "reused",
        "choose bystanders": "reused",
        "edit: memit": "reused",
        "ask the base model": "finished",
        "ask after memit": "finished",
        "tune: memit": "finished",
    }


def test_further_kinds_are_asked_in_every_phase_and_leave_the_rest_as_it_is(
    undisturbed: Outcome, further: Outcome
) -> None:
    before, after = (pd.read_parquet(one.folder / "facts.parquet") for one in (undisturbed, further))
    before = before[before["arm"] == "memit"]
    plain = after[after["kind"].isin(PLAIN)]
    pd.testing.assert_frame_equal(
        before.set_index(QUESTION), plain.set_index(QUESTION)[before.columns.drop(QUESTION)], rtol=1e-3, atol=1e-4
    )
    rest = after[~after["kind"].isin(PLAIN)]
    counts = rest.groupby(["kind", "fact_set", "phase"]).size()
    assert counts.unstack("phase").notna().all(axis=None)  # base, edited, tuned, and no point of a curve
    assert set(rest["phase"]) == {"base", "edited", "tuned"}
    # prompts of one relation have a form of be; both orders of a choice; own and held-out wordings
    assert counts["two-choice", "edited", "base"] == 2 * 4 and counts["old-object", "edited", "base"] == 2 * 4
    both = rest[rest["kind"] == "two-choice"].groupby(["phase", "fact_set", "fact_id"])["success"].nunique()
    assert (both == 1).all()


def test_the_report_tells_them_apart(further: Outcome, undisturbed: Outcome) -> None:
    effects = pd.read_csv(further.folder / "tables" / "effects.csv").set_index("measure")
    rows = pd.read_parquet(further.folder / "facts.parquet")
    asked = rows[(rows["kind"] == "old-object") & (rows["fact_set"] == "edited") & (rows["phase"] == "edited")]
    assert effects.loc["old_object_edited", "value"] == pytest.approx(asked["success"].mean())
    table = pd.read_csv(further.folder / "tables" / "further.csv")
    assert set(table["kind"]) == set(ALSO) and set(table["fact_set"]) == {"edited", "intrinsic"}
    line = table.set_index(["kind", "fact_set"]).loc[("old-object", "edited")]
    assert line["edited"] == pytest.approx(asked["success"].mean())
    assert line["edited_probability"] == pytest.approx(asked["probability"].mean())
    assert "further" in (further.folder / "report.html").read_text("utf-8")
    assert not (undisturbed.folder / "tables" / "further.csv").exists()
    assert "negation" not in (undisturbed.folder / "tables" / "effects.csv").read_text("utf-8")
