"""What a study says that it will cost, before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from indelible.study.design.arms import resolve_arms
from indelible.study.design.settings import StudyConfig
from indelible.study.run.cost import QUESTION_TOKENS, SAMPLING, Cost, machine_speed
from indelible.study.run.plan import make_plan
from indelible.study.run.run import preview_study
from indelible.study.run.step import Versions
from tiny_studies import study_settings


def test_tuning_is_counted_in_steps_and_tokens(taught: Path, tmp_path: Path) -> None:
    settings = study_settings(taught)
    settings["tuning"]["accumulation"] = 2
    config = StudyConfig.model_validate(settings)
    preview = preview_study(config, tmp_path / "run")
    cost = sum((step.work.cost(config.facts) for step in preview.plan.steps), Cost())
    assert (cost.tunings, cost.optimizer_steps) == (3, 18)
    assert cost.tokens == 18 * 4 * 2 * 96
    assert cost.operations > 6 * cost.tokens
    assert preview.cost.startswith("Cost: 3 runs of tuning, at most 18 steps and 13,824 tokens; roughly ")


def cost(config: StudyConfig, kind: str) -> Cost:
    """Of the steps of that kind alone."""
    plan = make_plan(config, resolve_arms(config), Versions("m", "t", {}, "f", "c", "x"))
    return sum((step.work.cost(config.facts) for step in plan.steps if step.kind == kind), Cost())


def study(tuning: dict[str, Any], **arm: Any) -> StudyConfig:
    settings = {
        "name": "s",
        "model": "m",
        "facts": {"n_edits": 5, "n_intrinsic": 7, "held_out": 0, "neighbours": 0},
        "tuning": {"steps": 3, "batch_size": 8, "max_tokens": 32, "heldout_examples": 10} | tuning,
        "arms": [{"name": "a", "editor": "memit", **arm}],
    }
    return StudyConfig.model_validate(settings)


ASKED = 2 * QUESTION_TOKENS * (5 + 7)
ROWS = 3 * 8


@pytest.mark.parametrize(
    ("tuning", "trained", "alone"),
    [
        ({"objective": "text"}, ROWS, 2 * 10),
        # Right answers of held-out questions are read, others written.
        ({"objective": "reason"}, ROWS, 2 * 10 + SAMPLING * 2 * 10),
        # Both answers of a pair, the reference's pass over all pairs that were drawn, held-out ones too.
        ({"objective": "preference", "train_examples": 50}, 2 * ROWS, 2 * (50 + 10) + 2 * 2 * 10),
        # Two problems a step, each answered and trained on four times; held-out ones as often, and greedily.
        ({"objective": "reward", "generations": 4}, ROWS, SAMPLING * (ROWS + 2 * 5 * 10)),
    ],
)
def test_an_objective_costs_what_it_sends_through_the_model(tuning: dict[str, Any], trained: int, alone: int) -> None:
    found = cost(study(tuning), "tune")
    assert found.tokens == 32 * trained
    assert found.operations == 32 * (6 * trained + 2 * alone) + ASKED


def test_isolated_arms_ask_intrinsic_facts_in_every_copy() -> None:
    batch, isolated = (study({"objective": "text"}, protocol=protocol) for protocol in ("batch", "isolated"))
    assert cost(batch, "probe").operations == 2 * ASKED  # the base model, and the edited one
    in_a_copy = 2 * QUESTION_TOKENS * (1 + 7)
    assert cost(isolated, "probe").operations == ASKED + 5 * in_a_copy
    one = cost(batch, "tune").operations - ASKED + in_a_copy
    assert (cost(isolated, "tune").tunings, cost(isolated, "tune").operations) == (5, 5 * one)


def test_answers_as_published_are_longer() -> None:
    usual = study({"objective": "text"})
    published = usual.model_copy(update={"as_published": True})
    assert cost(published, "probe").operations > 2 * cost(usual, "probe").operations


def test_time_goes_with_parameters_and_against_speed() -> None:
    cost = Cost(30_000.0, 1, 10, 5_000)
    assert cost.seconds(2_000, 1e6) == pytest.approx(2 * cost.seconds(1_000, 1e6))
    assert cost.seconds(1_000, 2e6) == pytest.approx(cost.seconds(1_000, 1e6) / 2)
    assert "known once the model is here" in cost.in_words(None)
    assert Cost().in_words(0.0).startswith("Cost: no tuning; roughly 0 s")


def test_a_machines_speed_is_measured() -> None:
    assert 1e8 < machine_speed(torch.device("cpu"), torch.float32, width=256) < 1e16
