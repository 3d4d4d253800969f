"""Options of a fine-tuning run: wrong ones are named, with the nearest right one where there is one."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from indelible.errors import UnknownNameError
from indelible.tuning.settings import TuningSettings


@pytest.mark.parametrize(
    ("options", "suggestion"),
    [({"objective": "reson"}, "reason"), ({"task": "txt"}, "text"), ({"tuner": "ful"}, "full")],
)
def test_unknown_names_get_a_suggestion(options: dict[str, str], suggestion: str) -> None:
    with pytest.raises(UnknownNameError, match=suggestion):
        TuningSettings.model_validate(options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("steps", 0),
        ("batch_size", -1),
        ("max_tokens", 1),
        ("precision", "fp16"),
        ("schedule", "step"),
        ("heldout_examples", 0),
        ("stepps", 3),
    ],
)
def test_wrong_values_name_their_option(option: str, value: object) -> None:
    with pytest.raises(ValidationError, match=option):
        TuningSettings.model_validate({option: value})


def test_a_stop_needs_held_out_losses() -> None:
    assert TuningSettings().evaluation_interval is None
    assert TuningSettings(stop_at={"loss": 3.0}).evaluation_interval == 10
    assert TuningSettings(patience=2).evaluation_interval == 10
    assert TuningSettings(stop_at={"loss": 3.0}, evaluate_every=100).evaluation_interval == 100


def test_a_figure_that_the_objective_lacks_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="exact_match"):
        TuningSettings(objective="reason", stop_at={"exact": 0.5})
    with pytest.raises(UnknownNameError, match="accuracy"):
        TuningSettings(objective="classify", stop_at={"acuracy": 0.5})


def test_epochs_count_passes_over_the_rows_that_there_are() -> None:
    settings = TuningSettings(epochs=2.5, train_examples=100, batch_size=8, accumulation=2)
    assert (settings.steps_at_most, settings.steps_over(100), settings.steps_over(40)) == (16, 16, 7)
    assert TuningSettings(epochs=9, steps=5, train_examples=100).steps_over(100) == 5
    assert (TuningSettings().steps_at_most, TuningSettings(steps=7).steps_over(3)) == (40, 7)
    with pytest.raises(ValidationError, match="train_examples"):
        TuningSettings(epochs=1)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="task and data"):
        TuningSettings(task="text", data={"source": "my.jsonl"})
    with pytest.raises(ValidationError, match="classify"):
        TuningSettings(objective="text", head=True)
