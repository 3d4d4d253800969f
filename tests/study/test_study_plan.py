"""The graph of steps: what arms share, and what a changed option reruns."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from indelible.edits.editor import EDITORS
from indelible.edits.editors.ft import FineTuning
from indelible.edits.editors.memit import Memit
from indelible.errors import ConfigError
from indelible.models.layout import find_layout
from indelible.study.design.arms import Arm, resolve_arms
from indelible.study.design.checks import check_with_model
from indelible.study.design.settings import FactsSettings, StudyConfig
from indelible.study.run.cost import SAMPLING, Speed
from indelible.study.run.plan import Plan, make_plan
from indelible.study.run.sources import digest
from indelible.study.run.step import Versions
from indelible.study.run.steps.tune import Tune
from indelible.tuning.objective import OBJECTIVES, tuning_settings
from indelible.tuning.protection import WORDING_TOKENS, Protection
from indelible.tuning.protections.anchor import Anchor
from indelible.tuning.protections.interpolate import Interpolate
from indelible.tuning.protections.key_anchor import KeyAnchor
from indelible.tuning.protections.projection import Projection
from indelible.tuning.protections.repair import Repair
from indelible.tuning.protections.replay import Replay
from indelible.tuning.protections.self_replay import SelfReplay
from indelible.tuning.settings import TuningSettings
from indelible.tuning.training.guarding import Guarding
from tiny_families import build_odd
from tiny_models import Make, Tokenizer

VERSIONS = Versions(model="m1", tokenizer="k1", software={"torch": "2.6.0"}, facts="f1", corpus="c1", tasks="t1")
TUNING = TuningSettings(objective="reason", steps=5)
PLAIN = Arm("plain", Memit(clamp=1.0), TUNING)
FROZEN = replace(PLAIN, name="frozen", mask="edited-layers")
WORDY = replace(PLAIN, name="wordy", paraphrases=3)
CONTROL = Arm("control", None, TUNING)
TEXTLESS = Arm("ft", FineTuning(), TUNING)
ARMS = (PLAIN, FROZEN, WORDY, TEXTLESS, CONTROL)
TUNED = {f"tune: {arm.name}" for arm in ARMS}
WITH_TEXT = {
    *("edit: memit", "ask after memit", "tune: plain", "tune: frozen"),
    *("edit: memit with 3 paraphrases", "ask after memit with 3 paraphrases", "tune: wordy"),
}


def config(**changes: Any) -> StudyConfig:
    arms = [{"name": arm.name, "editor": arm.factors["editor"]} for arm in ARMS]
    return StudyConfig.model_validate({"name": "a", "model": "m", "arms": arms, **changes})


def plan(arms: tuple[Arm, ...] = ARMS, versions: Versions = VERSIONS, **changes: Any) -> Plan:
    return make_plan(config(**changes), arms, versions)


def kinds(made: Plan) -> list[str]:
    return [step.kind for step in made.steps]


def rerun(before: Plan, after: Plan) -> set[str]:
    """Titles, without seed, of the steps of ``after`` that ``before`` does not hold."""
    done = {step.key for step in before.steps}
    return {step.title.rpartition(",")[0] for step in after.steps if step.key not in done}


def changed(old: Arm, **changes: Any) -> tuple[Arm, ...]:
    return tuple(replace(arm, **changes) if arm is old else arm for arm in ARMS)


def test_arms_share_the_choice_of_facts_and_equal_edits() -> None:
    made = plan()
    assert made == plan()
    assert kinds(made).count("select") == 1
    assert kinds(made).count("bystanders") == 1
    assert kinds(made).count("edit") == 3  # plain and frozen share one
    assert kinds(made).count("probe") == 1 + 3
    assert kinds(made).count("tune") == 5
    edits = {run.arm.name: run.edit for run in made.runs}
    assert edits["plain"] == edits["frozen"] != edits["wordy"]
    assert edits["control"] is None


def test_each_seed_has_steps_of_its_own_and_every_step_comes_after_its_inputs() -> None:
    made = plan(seeds=[0, 1])
    assert len(made.steps) == 2 * len(plan().steps)
    assert len(made.runs) == 2 * len(ARMS)
    done: set[str] = set()
    for step in made.steps:
        assert {before.key for before in step.inputs.values()} <= done
        done.add(step.key)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (plan(seeds=[0]), set()),
        (plan(changed(PLAIN, name="other")), set()),
        (plan(changed(FROZEN, mask="edited-weights")), {"tune: frozen"}),
        (plan(changed(CONTROL, tuning=TUNING.model_copy(update={"steps": 6}))), {"tune: control"}),
        (
            plan(changed(WORDY, editor=Memit(clamp=2.0))),
            {"edit: memit with 3 paraphrases", "ask after memit with 3 paraphrases", "tune: wordy"},
        ),
        (plan(exam={"every": 2}), TUNED),
        (plan(versions=replace(VERSIONS, tasks="t2")), TUNED),
        (plan(versions=replace(VERSIONS, corpus="c2")), WITH_TEXT),
        (plan(facts={"bystanders": 7}), WITH_TEXT | {"choose bystanders"}),
        (plan(facts={"bystanders": 0}), WITH_TEXT),
    ],
)
def test_a_changed_option_reruns_what_hangs_on_it(after: Plan, expected: set[str]) -> None:
    assert rerun(plan(), after) == expected


@pytest.mark.parametrize(
    "change", [{"model": "m2"}, {"facts": "f2"}, {"tokenizer": "k2"}, {"software": {"torch": "2.7.0"}}]
)
def test_another_model_tokenizer_or_library_or_other_facts_rerun_everything(change: dict[str, str]) -> None:
    after = plan(versions=replace(VERSIONS, **change))
    assert len(rerun(plan(), after)) == len(after.steps)


def test_an_objectives_new_version_reruns_its_own_tuning_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = (PLAIN, replace(CONTROL, tuning=TUNING.model_copy(update={"objective": "text"})))
    before = plan(arms=arms)
    monkeypatch.setattr(OBJECTIVES.get("text"), "version", 7, raising=False)
    assert rerun(before, plan(arms=arms)) == {"tune: control"}


def test_another_way_to_guard_reruns_protected_tuning_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = (PLAIN, replace(PLAIN, name="held", protections=(Replay(),)))
    before = plan(arms)
    monkeypatch.setattr(Guarding, "version", Guarding.version + 1)
    assert rerun(before, plan(arms)) == {"tune: held"}


def test_bystanders_are_chosen_only_for_edits_that_read_them() -> None:
    assert "bystanders" not in kinds(plan(facts={"bystanders": 0}))
    assert "bystanders" not in kinds(plan((TEXTLESS, CONTROL)))


def test_digests_ignore_the_order_of_keys_but_not_of_lists() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest({"a": 1}) != digest({"a": "1"})
    with pytest.raises(ValueError, match="JSON"):
        digest(float("nan"))


def test_a_mask_by_an_edits_layers_wants_an_editor_that_has_some() -> None:
    with pytest.raises(ConfigError, match=r"'arms\.x\.mask' is 'edited-layers', but an edit by 'ike' lies in no layer"):
        resolve_arms(config(arms=[{"name": "x", "editor": "ike", "mask": "edited-layers"}]))


@pytest.mark.parametrize(
    ("editor", "options", "said"),
    [
        ("ft-m", {"layer": 2}, r"'arms\.x\.options': Layer 2 has no one linear map to edit"),
        ("grace", {}, r"'arms\.x\.options': Layer 3 has no one linear map to edit.*Edit layers that have one \(0\)"),
        ("lora", {"layers": [0, 1]}, r"'arms\.x\.options': Layer 1 has no one linear map to edit"),
        ("lora", {"layers": "auto"}, r"'arms\.x\.options': Causal tracing cannot choose layers"),
        ("lora", {"layers": [0, 1], "target": "all-linear"}, ""),
        ("ft-m", {"layer": 0}, ""),
        ("ft-m", {"layer": "auto"}, ""),
        ("grace", {"layer": 0}, ""),
    ],
)
def test_a_layer_without_a_memory_is_found_before_the_first_step(
    editor: str, options: dict[str, Any], said: str, tiny_tokenizer: Tokenizer
) -> None:
    model = build_odd("deepseek_v3", len(tiny_tokenizer))  # experts, all but its layer 0
    arm = Arm("x", EDITORS.get(editor)(**options), tuning_settings({}))
    with pytest.raises(ConfigError, match=said) if said else nullcontext():
        check_with_model([arm], model, find_layout(model), tiny_tokenizer, list)


@pytest.mark.parametrize(
    ("mask", "protection", "said"),
    [
        (
            "up-to-edited",
            Projection(),
            r"'arms\.x\.protect' is 'projection' under the mask 'up-to-edited': No linear map",
        ),
        ("up-to-edited", Projection(where="all"), ""),
        ("edited-layers", Projection(), ""),
        ("none", Projection(), ""),
        ("up-to-edited", KeyAnchor(), r"'arms\.x\.protect' is 'key-anchor' under .*: No weight is trained that a key"),
        ("up-to-edited", Repair(), r"'arms\.x\.protect' is 'repair' under .*: it would change .*weight, which that"),
        ("edited-weights", Repair(every=0), ""),
        ("up-to-edited", KeyAnchor(weight=0), ""),
        ("layers:0-2", KeyAnchor(), ""),  # embeddings move keys, too
        ("edited-layers", KeyAnchor(), ""),
    ],
    ids=str,
)
def test_a_mask_that_leaves_nothing_to_protect_is_found_before_the_first_step(
    mask: str, protection: Protection, said: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = tiny_model("llama")
    trained = [one.requires_grad for one in model.parameters()]
    arm = Arm("x", EDITORS.get("ft-m")(layer=2), tuning_settings({}), mask, (protection,))
    with pytest.raises(ConfigError, match=said) if said else nullcontext():
        check_with_model([arm], model, find_layout(model), tiny_tokenizer, list)
    assert [one.requires_grad for one in model.parameters()] == trained


def test_what_protections_do_is_counted() -> None:
    def seconds(*protections: Protection) -> float:
        settings = tuning_settings({"steps": 8, "max_tokens": 20, "batch_size": 5})
        speed = Speed(question=50.0, training={(settings.precision, False): 1.0})
        work = Tune(settings, "none", None, None, False, False, protections=protections, paraphrases=2)
        return work.cost(FactsSettings(n_edits=5, bystanders=7), speed).seconds

    plain, said = seconds(), 5 * 3 * WORDING_TOKENS
    assert seconds(Replay(at_once=6, every=3)) - plain == pytest.approx(8 * 2 * 6 * WORDING_TOKENS / 3)
    both = 8 * 2 * (6 + 6) * WORDING_TOKENS / 3 + 7 * 50.0  # which of the bystanders are known is asked first
    assert seconds(Replay(at_once=6, every=3, of="both")) - plain == pytest.approx(both)
    assert seconds(Anchor(at_once=4, every=2)) - plain == pytest.approx(8 * 2 * 4 * WORDING_TOKENS / 2 + said / 3)
    written = (1 + SAMPLING) * 3 * 30 / 3
    assert seconds(SelfReplay(at_once=2, every=4, texts=3, tokens=30)) - plain == pytest.approx(120 * 2 + written)
    seldom, often, never = (seconds(Repair(every=every)) - plain for every in (8, 4, 10**9))
    assert often - seldom == pytest.approx(seldom - never, rel=1e-6) and never > said / 3
    assert seconds(Projection()) > plain + said / 3
    off = (Replay(share=0), Interpolate(points=0), Repair(every=0), Projection(energy=0), Anchor(weight=0))
    assert seconds(*off) == plain
    assert seconds(Interpolate(points=2)) > plain


def test_arms_are_not_compared_with_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    monkeypatch.setattr(TuningSettings, "__eq__", lambda self, other: bool(compared.append(other)) or self is other)
    tuned = [tuning_settings({**TUNING.model_dump(), "steps": steps}) for steps in range(1, 101)]
    grid = [replace(CONTROL, name=f"control {one.steps}", tuning=one) for one in tuned]
    vectors = [replace(PLAIN, name=f"vector {one.steps}", tuning=one, protocol="task-vector") for one in tuned]
    made = plan((*grid, *vectors))
    assert sum(step.kind == "tune" for step in made.steps) == len(tuned)
    assert len(compared) < len(tuned)
