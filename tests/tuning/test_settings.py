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
    assert TuningSettings(stop_below=3.0).evaluation_interval == 10
    assert TuningSettings(stop_below=3.0, evaluate_every=100).evaluation_interval == 100
