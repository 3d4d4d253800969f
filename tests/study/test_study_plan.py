"""The graph of steps: what arms share, and what a changed option reruns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from indelible.edits.editors.ft import FineTuning
from indelible.edits.editors.memit import Memit
from indelible.study.design.arms import Arm
from indelible.study.design.settings import StudyConfig
from indelible.study.run.plan import Plan, make_plan
from indelible.study.run.sources import digest
from indelible.study.run.step import Versions
from indelible.tuning.objective import OBJECTIVES
from indelible.tuning.settings import TuningSettings

VERSIONS = Versions(model="m1", tokenizer="k1", software={"torch": "2.6.0"}, facts="f1", corpus="c1", tasks="t1")
TUNING = TuningSettings(objective="reason", steps=5)
PLAIN = Arm("plain", Memit(clamp=1.0), TUNING)
FROZEN = replace(PLAIN, name="frozen", mask="edited-layers")
WORDY = replace(PLAIN, name="wordy", paraphrases=3)
CONTROL = Arm("control", None, TUNING)
TEXTLESS = Arm("ft", FineTuning(), TUNING)
SIX = {"steps": 6}
ARMS = (PLAIN, FROZEN, WORDY, CONTROL)


def config(**changes: Any) -> StudyConfig:
    arms = [{"name": arm.name, "editor": arm.editor_name} for arm in ARMS]
    return StudyConfig.model_validate({"name": "a", "model": "m", "arms": arms, **changes})


def plan(arms: tuple[Arm, ...] = ARMS, versions: Versions = VERSIONS, **changes: Any) -> Plan:
    return make_plan(config(**changes), arms, versions)


def kinds(made: Plan) -> list[str]:
    return [step.kind for step in made.steps]


def rerun(before: Plan, after: Plan) -> set[str]:
    """Titles, without seed, of the steps of ``after`` that ``before`` does not hold."""
    done = {step.key for step in before.steps}
    return {step.title.rpartition(",")[0] for step in after.steps if step.key not in done}


def test_arms_share_the_choice_of_facts_and_equal_edits() -> None:
    made = plan()
    assert kinds(made).count("select") == 1
    assert kinds(made).count("bystanders") == 1
    assert kinds(made).count("edit") == 2  # plain and frozen share one
    assert kinds(made).count("probe") == 1 + 2
    assert kinds(made).count("tune") == 4
    edits = {run.arm.name: run.edit for run in made.runs}
    assert edits["plain"] == edits["frozen"] != edits["wordy"]
    assert edits["control"] is None


def test_every_step_comes_after_its_inputs() -> None:
    done: set[str] = set()
    for step in plan(seeds=[0, 1]).steps:
        assert {made.key for made in step.inputs.values()} <= done
        done.add(step.key)


def test_each_seed_has_steps_of_its_own() -> None:
    made = plan(seeds=[0, 1])
    assert len(made.steps) == 2 * len(plan().steps)
    assert len(made.runs) == 2 * len(ARMS)


def test_equal_settings_give_equal_keys() -> None:
    assert plan() == plan()


def test_a_name_alone_changes_nothing() -> None:
    assert rerun(plan(), plan(arms=(replace(PLAIN, name="other"), *ARMS[1:]))) == set()


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (plan(arms=(PLAIN, replace(FROZEN, mask="edited-weights"), WORDY, CONTROL)), {"tune: frozen"}),
        (
            plan(arms=(PLAIN, FROZEN, WORDY, replace(CONTROL, tuning=TUNING.model_copy(update=SIX)))),
            {"tune: control"},
        ),
        (
            plan(arms=(PLAIN, FROZEN, replace(WORDY, editor=Memit(clamp=2.0)), CONTROL)),
            {"edit: memit with 3 paraphrases", "ask after memit with 3 paraphrases", "tune: wordy"},
        ),
        (plan(exam={"every": 2}), {f"tune: {arm.name}" for arm in ARMS}),
        (plan(versions=replace(VERSIONS, tasks="t2")), {f"tune: {arm.name}" for arm in ARMS}),
        (plan(seeds=[0]), set()),
    ],
)
def test_a_changed_option_reruns_what_hangs_on_it(after: Plan, expected: set[str]) -> None:
    assert rerun(plan(), after) == expected


def test_an_objectives_new_version_reruns_its_own_tuning_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = (PLAIN, replace(CONTROL, tuning=TUNING.model_copy(update={"objective": "text"})))
    before = plan(arms=arms)
    monkeypatch.setattr(OBJECTIVES.get("text"), "version", 7, raising=False)
    assert rerun(before, plan(arms=arms)) == {"tune: control"}


@pytest.mark.parametrize(
    "change", [{"model": "m2"}, {"facts": "f2"}, {"tokenizer": "k2"}, {"software": {"torch": "2.7.0"}}]
)
def test_another_model_tokenizer_or_library_or_other_facts_rerun_everything(change: dict[str, str]) -> None:
    after = plan(versions=replace(VERSIONS, **change))
    assert len(rerun(plan(), after)) == len(after.steps)


def test_edits_that_read_no_text_are_spared_other_text_and_bystanders() -> None:
    arms = (TEXTLESS, CONTROL)
    assert rerun(plan(arms=arms), plan(arms=arms, versions=replace(VERSIONS, corpus="c2"))) == set()
    assert rerun(plan(arms=arms), plan(arms=arms, facts={"bystanders": 7})) == set()
    assert "bystanders" not in kinds(plan(arms=arms))


def test_other_bystanders_spare_all_but_the_edits_that_read_them() -> None:
    again = rerun(plan(arms=(*ARMS, TEXTLESS)), plan(arms=(*ARMS, TEXTLESS), facts={"bystanders": 7}))
    assert "choose bystanders" in again and "edit: memit" in again
    assert not again & {"choose facts", "ask the base model", "edit: ft", "ask after ft", "tune: ft", "tune: control"}


def test_without_bystanders_none_are_chosen() -> None:
    made = plan(facts={"bystanders": 0})
    assert "bystanders" not in kinds(made)
    assert all("bystanders" not in run.edit.inputs for run in made.runs if run.edit is not None)


def test_another_corpus_spares_what_comes_before_the_edit() -> None:
    assert rerun(plan(), plan(versions=replace(VERSIONS, corpus="c2"))) == {
        "edit: memit",
        "edit: memit with 3 paraphrases",
        "ask after memit",
        "ask after memit with 3 paraphrases",
        "tune: plain",
        "tune: frozen",
        "tune: wordy",
    }


def test_digests_ignore_the_order_of_keys_but_not_of_lists() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest({"a": 1}) != digest({"a": "1"})
    with pytest.raises(ValueError, match="JSON"):
        digest(float("nan"))
