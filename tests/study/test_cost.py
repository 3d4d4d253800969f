"""What a study says that it will cost, before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from indelible.study.config import StudyConfig
from indelible.study.cost import Cost, cost_of, machine_speed
from indelible.study.run import preview_study
from tiny_studies import study_settings


def test_tuning_is_counted_in_steps_and_tokens(taught: Path, tmp_path: Path) -> None:
    settings = study_settings(taught / "model", taught / "facts.jsonl", taught / "corpus.txt")
    settings["tuning"]["accumulation"] = 2
    config = StudyConfig.model_validate(settings)
    preview = preview_study(config, tmp_path / "run")
    cost = cost_of(preview.plan.steps, config.facts)
    assert (cost.tunings, cost.optimizer_steps) == (3, 18)
    assert cost.tokens == 18 * 4 * 2 * 96
    assert cost.operations > 6 * cost.tokens
    assert preview.cost.startswith("Cost: 3 runs of tuning, at most 18 steps and 13,824 tokens; roughly ")
    tuned = [step for step in preview.plan.steps if step.kind == "tune"]
    assert cost_of(tuned[:1], config.facts).optimizer_steps == 6


def test_time_goes_with_parameters_and_against_speed() -> None:
    cost = Cost(1, 10, 5_000, 30_000.0)
    assert cost.seconds(2_000, 1e6) == pytest.approx(2 * cost.seconds(1_000, 1e6))
    assert cost.seconds(1_000, 2e6) == pytest.approx(cost.seconds(1_000, 1e6) / 2)
    assert "known once the model is here" in cost.in_words(None)
    assert Cost(0, 0, 0, 0.0).in_words(0.0).startswith("Cost: no tuning; roughly 0 s")


def test_a_machines_speed_is_measured() -> None:
    assert 1e8 < machine_speed(torch.device("cpu"), torch.float32, width=256) < 1e16
