"""Stop rules: figures reached in their own direction, and patience that ends."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from indelible.errors import ConfigError
from indelible.tuning.objective import OBJECTIVES, tuning_settings
from indelible.tuning.training.stopping import StopRules

BEFORE = {"loss": 4.0, "accuracy": 0.5}


def rules(objective: str, before: Mapping[str, float] = BEFORE, **options: object) -> StopRules:
    return StopRules(tuning_settings({"objective": objective, **options}), OBJECTIVES.get(objective), before)


def test_a_loss_stops_below_and_an_accuracy_above() -> None:
    loss = rules("text", stop_at={"loss": 3.0})
    assert [loss.stop({"loss": value}) for value in (3.5, 3.001, 3.0)] == [False, False, True]
    accuracy = rules("classify", stop_at={"accuracy": 0.8})
    assert [accuracy.stop({"accuracy": value}) for value in (0.5, 0.79, 0.8)] == [False, False, True]
    assert loss.reached and accuracy.reached
    assert loss.names == ("loss",) and accuracy.names == ("accuracy",)


def test_a_figure_can_be_said_relative_to_the_one_before_tuning() -> None:
    loss = rules("text", stop_at={"loss": "-5%"})
    assert [loss.stop({"loss": value}) for value in (3.9, 3.81, 3.8)] == [False, False, True]
    accuracy = rules("classify", stop_at={"accuracy": "+20%"})
    assert [accuracy.stop({"accuracy": value}) for value in (0.55, 0.61)] == [False, True]


@pytest.mark.parametrize("value", ["5%", "less", "--5%", "-5 percent"])
def test_a_relative_figure_that_cannot_be_read_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="stop_at"):
        rules("text", stop_at={"loss": value})


@pytest.mark.parametrize(
    ("objective", "figure", "value"),
    [("text", "loss", "+5%"), ("classify", "accuracy", "-5%"), ("classify", "accuracy", "+0%")],
)
def test_a_relative_figure_that_is_no_improvement_is_refused(objective: str, figure: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"tuning: stop_at {figure} \{value} is no improvement"):
        rules(objective, stop_at={figure: value})


@pytest.mark.parametrize(
    ("objective", "figure", "before"), [("reason", "exact_match", 0.0), ("preference", "margin", -0.5)]
)
def test_a_share_of_nothing_or_less_cannot_be_gained(objective: str, figure: str, before: float) -> None:
    with pytest.raises(ConfigError, match=rf"{figure} is {before:g} before tuning.*absolute figure"):
        rules(objective, {figure: before}, stop_at={figure: "+20%"})
    absolute = rules(objective, {figure: before}, stop_at={figure: 0.2})
    assert [absolute.stop({figure: value}) for value in (before, 0.2)] == [False, True]


def test_several_figures_all_have_to_be_reached() -> None:
    both = rules("classify", stop_at={"accuracy": 0.8, "loss": 0.5})
    assert not both.stop({"accuracy": 0.9, "loss": 0.6})
    assert both.reached is False
    assert both.stop({"accuracy": 0.8, "loss": 0.5})


def test_patience_counts_looks_without_a_better_utility() -> None:
    patient = rules("text", patience=2)
    values = [3.0, 2.9, 2.95, 2.9, 2.8, 2.8, 2.9]
    assert [patient.stop({"loss": value}) for value in values] == [False, False, False, True, False, False, True]
    assert patient.reached is None
    upwards = rules("classify", patience=1)
    assert [upwards.stop({"accuracy": value}) for value in (0.1, 0.2, 0.2)] == [False, False, True]


def test_a_rule_on_one_figure_does_not_ask_for_dearer_ones() -> None:
    assert rules("classify", stop_at={"loss": 1.0}).names == ("loss",)
    assert rules("classify", stop_at={"loss": 1.0}, patience=3).names == ("accuracy", "loss")
    assert rules("reason").names == ("loss",)
