"""What a study says that it will cost, before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from indelible.models.load import load
from indelible.progress import RANGE, Span
from indelible.study.design.arms import resolve_arms
from indelible.study.design.settings import ExamSettings, StudyConfig
from indelible.study.run.cost import FILLED, LONGER, SAMPLING, WORDING_TOKENS, Cost, Speed, measured_speed
from indelible.study.run.plan import make_plan
from indelible.study.run.run import preview_study
from indelible.study.run.sources import candidate_facts
from indelible.study.run.step import Versions
from tiny_studies import study_settings


def test_tuning_is_counted_in_steps_and_tokens(taught: Path, tmp_path: Path) -> None:
    settings = study_settings(taught)
    settings["tuning"]["accumulation"] = 2
    config = StudyConfig.model_validate(settings)
    preview = preview_study(config, tmp_path / "run")
    cost = sum((step.work.cost(config.facts, Speed()) for step in preview.plan.steps), Cost())
    assert (cost.tunings, cost.optimizer_steps) == (3, 18)
    assert cost.tokens == 18 * 4 * 2 * 96
    said = preview.cost
    assert said.startswith("Cost: 3 runs of tuning, at most 18 steps and 13,824 tokens; ") and "on this machine" in said


def test_accelerator_hours_and_kept_weights_are_said() -> None:
    said = Cost(7200.0, 1, 10, 500, kept=1_500_000_000).in_words(Span(1800.0, 3600.0), "4 workers of the cluster", 0.5)
    assert said == (
        "Cost: 1 run of tuning, at most 10 steps and 500 tokens; 30 min 00 s to 1 h 00 min on 4 workers of the cluster "
        "as it is now, some 1.0 accelerator hours in all, less where runs stop early. Weights that are kept take up to "
        "1.5 GB of disk."
    )


def test_an_arm_that_is_explained_keeps_its_weights() -> None:
    assert cost(study({}, explain=True), "tune", Speed(weights=100)).kept == 100
    assert cost(study({}), "tune", Speed(weights=100)).kept == 0


def cost(config: StudyConfig, kind: str, speed: Speed) -> Cost:
    """Of the steps of that kind alone."""
    plan = make_plan(config, resolve_arms(config), Versions("m", "t", {}, "f", "c", "x"))
    return sum((step.work.cost(config.facts, speed) for step in plan.steps if step.kind == kind), Cost())


def study(tuning: dict[str, Any], **arm: Any) -> StudyConfig:
    shared = {"steps": 3, "batch_size": 8, "max_tokens": 32, "heldout_examples": 10, "precision": "fp32"}
    settings = {
        "name": "s",
        "model": "m",
        "facts": {"n_edits": 5, "n_intrinsic": 7, "held_out": 2, "neighbours": 1},
        "tuning": shared | tuning,
        "arms": [{"name": "a", "editor": "memit", **arm}],
    }
    return StudyConfig.model_validate(settings)


ASKING = Speed(question=1.0)
TRAINING = Speed(training={("fp32", True): 1.0, ("fp32", False): 1.0})
QUESTIONS = 5 * (1 + 2 + 1) + 7 * (1 + 2)
ROWS = 3 * 8
ON_THE_WAY = ExamSettings(every=2)


@pytest.mark.parametrize(
    ("tuning", "trained", "alone"),
    [
        ({"objective": "text"}, ROWS, 2 * 10),
        # Right answers of held-out questions are read, others written.
        ({"objective": "reason"}, ROWS, 2 * 10 + SAMPLING * 2 * 10),
        # Both answers of a pair, the reference's pass over all pairs that were drawn, held-out ones too.
        ({"objective": "preference", "train_examples": 50}, 2 * ROWS, 2 * (50 + 10) + 2 * 2 * 10),
        # Eight answers a step, to two problems; held-out ones are answered as often, and greedily.
        ({"objective": "reward", "generations": 4}, ROWS, SAMPLING * (ROWS + 2 * 5 * 10)),
    ],
)
def test_an_objective_costs_what_it_sends_through_the_model(tuning: dict[str, Any], trained: int, alone: int) -> None:
    found = cost(study(tuning), "tune", TRAINING)
    assert found.tokens == 32 * trained
    assert found.seconds == pytest.approx(FILLED * 32 * (trained + alone / 3))


def test_a_dose_costs_what_it_says() -> None:
    found = cost(study({"objective": "text", "steps": None, "dose": [100, 1_000]}), "tune", TRAINING)
    assert found.tokens == 1_000 and found.optimizer_steps == 6  # of 8 rows of 22 tokens
    assert found.seconds == pytest.approx(1_000 + 3 * 10 * FILLED * 32 / 3)
    assert cost(study({"objective": "text"}), "tune", Speed(step=2.0)).seconds == 3 * 2.0


def test_exams_on_the_way_take_the_utility_along() -> None:
    def read(objective: str, **arm: Any) -> float:
        own = {"generations": 4} if objective == "reward" else {}
        plain = study({"objective": objective, **own}, **arm)
        asked = plain.model_copy(update={"exam": ON_THE_WAY})
        more = cost(asked, "tune", TRAINING).seconds - cost(plain, "tune", TRAINING).seconds
        return more / (FILLED * 32 / 3)

    assert read("text") == pytest.approx(10)
    assert read("reason") == pytest.approx(10), "its utility is not written"
    assert read("reward") == pytest.approx(SAMPLING * 5 * 10)
    assert read("text", protect="interpolate") == 0, "there is no exam on the way"


def test_exams_cost_their_questions() -> None:
    batch, isolated = (study({"objective": "text"}, protocol=protocol) for protocol in ("batch", "isolated"))
    assert cost(batch, "probe", ASKING).seconds == 2 * QUESTIONS  # the base model, and the edited one
    in_a_copy = 1 * (1 + 2 + 1) + 7 * (1 + 2)
    assert cost(isolated, "probe", ASKING).seconds == QUESTIONS + 5 * in_a_copy
    assert cost(batch, "tune", ASKING).seconds == QUESTIONS
    assert (cost(isolated, "tune", ASKING).tunings, cost(isolated, "tune", ASKING).seconds) == (5, 5 * in_a_copy)
    by_dose = study({"objective": "text", "steps": None, "dose": [100, 200, 300]})
    assert cost(by_dose, "tune", ASKING).seconds == QUESTIONS + 2 * (5 + 7)
    published = batch.model_copy(update={"as_published": True})
    assert cost(published, "probe", ASKING).seconds == LONGER * cost(batch, "probe", ASKING).seconds


def test_edits_cost_by_their_wordings_and_their_optimiser() -> None:
    def edit(**arm: Any) -> float:
        return cost(study({"objective": "text"}, **arm), "edit", Speed(editing=1.0)).seconds

    assert edit() == 5 * WORDING_TOKENS["normalised"]
    assert edit(paraphrases=3, options={"optimiser": "adam"}) == 5 * 4 * WORDING_TOKENS["adam"]
    assert edit(editor="ft", options={"steps": 30}) == 2 * edit(editor="ft", options={"steps": 15}) > 0


def test_a_range_is_said_or_that_nothing_is_known() -> None:
    cost = Cost(1.0, 1, 10, 5_000)
    assert cost.in_words(None).endswith("how long is known once the model is here.")
    assert f"; {RANGE[0] * 20:.0f} s to {RANGE[1] * 20:.0f} s on this machine" in cost.in_words(Span.about(20.0))
    assert Cost().in_words(Span(0.0, 0.0)).startswith("Cost: no tuning; 0 s on")


def test_speed_is_measured_and_the_model_left_as_it_was(taught: Path) -> None:
    settings = study_settings(taught)
    settings["tuning"]["max_tokens"] = 10**12  # of which no row is, and no model takes so many
    config = StudyConfig.model_validate(settings)
    loaded = load(config.model)
    loaded.model.requires_grad_(False)
    before = {name: one.clone() for name, one in loaded.model.named_parameters()}
    state = torch.get_rng_state()
    tunings = [arm.tuning for arm in resolve_arms(config)]
    speed = measured_speed(loaded.model, loaded.tokenizer, candidate_facts(config.facts), tunings)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, before[name]) for name, one in loaded.model.named_parameters())
    assert not any(one.requires_grad or one.grad is not None for one in loaded.model.parameters())
    assert list(speed.training) == [("fp32", False)]
    assert min(speed.question, speed.editing, speed.step, *speed.training.values()) > 0
    assert speed.trained(tunings[0]) == speed.training["fp32", False]
