"""Options of a fine-tuning run: wrong ones are named, with the nearest right one where there is one."""

from __future__ import annotations

from typing import Any

import pytest

from indelible.errors import ConfigError
from indelible.tuning.objective import OBJECTIVES, own_options, tuning_settings
from indelible.tuning.objectives.preference import PreferenceSettings
from indelible.tuning.settings import TuningSettings


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "reson"}, "Unknown objective 'reson' in 'tuning'.*reason"),
        ({"task": "txt"}, "text"),
        ({"tuner": "ful"}, "full"),
        ({"objective": "preference", "bta": 0.1}, r"'tuning\.bta'.*beta"),
        ({"objective": "text", "beta": 0.1}, r"'tuning\.beta' is an option of the objective 'preference'"),
        ({"objective": "preference", "beta": 0}, r"'tuning\.beta'"),
        ({"objective": "reward", "generations": 3}, r"batch_size x accumulation \(8\).*multiple of generations \(3\)"),
        ({"objective": "text", "head": True}, r"'tuning\.head'"),
        ({"objective": "reason", "stop_at": {"exact": 0.5}}, "'exact' in 'tuning.stop_at'.*exact_match"),
        ({"objective": "classify", "stop_at": {"acuracy": 0.5}}, "accuracy"),
        ({"stop_at": {"loss": "5%"}}, "'tuning.stop_at.loss' is '5%': give a figure, or a change such as -5%"),
        ({"stop_at": {"loss": float("nan")}}, "'tuning.stop_at.loss' should be a finite number.*nan"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"steps": 0}, "steps"),
        ({"batch_size": -1}, "batch_size"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"precision": "fp16"}, "precision"),
        ({"schedule": "step"}, "schedule"),
        ({"heldout_examples": 0}, "heldout_examples"),
        ({"stepps": 3}, "stepps.*steps"),
        ({"epochs": 1}, "train_examples"),
        ({"dose": [200, 100]}, "larger than the one before"),
        ({"dose": [100], "steps": 8}, "leave one out"),
        ({"task": "text", "data": {"source": "my.jsonl"}}, "task and data"),
    ],
)
def test_wrong_options_are_named_with_what_comes_near(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tuning_settings(options)


def test_each_objective_has_options_of_its_own() -> None:
    made = tuning_settings({"objective": "preference", "beta": 0.3})
    assert made == PreferenceSettings(beta=0.3) and made.model_dump()["beta"] == 0.3
    assert type(tuning_settings({})) is TuningSettings and not hasattr(tuning_settings({}), "beta")
    for name in OBJECTIVES.names():
        assert tuning_settings({"objective": name}) == OBJECTIVES.get(name).settings(objective=name)


def test_what_a_whole_study_says_reaches_the_objectives_that_know_it() -> None:
    shared = {"steps": 3, "beta": 0.2, "head": True, "nonsense": 1}
    used = ("preference", "classify", "text")
    assert own_options(shared, "preference", used) == {"steps": 3, "beta": 0.2, "nonsense": 1}
    assert own_options(shared, "classify", used) == {"steps": 3, "head": True, "nonsense": 1}
    assert own_options(shared, "text", ("text", "reason")) == shared, "what no arm knows is found to be unknown"


def test_a_stop_needs_held_out_losses() -> None:
    assert TuningSettings().evaluation_interval is None
    assert TuningSettings(stop_at={"loss": 3.0}).evaluation_interval == 10
    assert TuningSettings(patience=2).evaluation_interval == 10
    assert TuningSettings(stop_at={"loss": 3.0}, evaluate_every=100).evaluation_interval == 100


def test_epochs_count_passes_over_the_rows_that_there_are() -> None:
    settings = TuningSettings(epochs=2.5, train_examples=100, batch_size=8, accumulation=2)
    assert (settings.steps_at_most, settings.steps_over(100), settings.steps_over(40)) == (16, 16, 7)
    assert TuningSettings(epochs=9, steps=5, train_examples=100).steps_over(100) == 5
    assert TuningSettings(dose=(100, 5_000), batch_size=4, max_tokens=50).steps_at_most == 25
    assert TuningSettings(dose=(100, 5_000), batch_size=4).steps_over(120, 5_010) == 30
    assert TuningSettings(dose=(100, 5_000), batch_size=4).steps_over(10, 1_200) == 3 * 5
    assert (TuningSettings().steps_at_most, TuningSettings(steps=7).steps_over(3)) == (40, 7)
    answered = tuning_settings({"objective": "reward", "batch_size": 8, "accumulation": 2, "generations": 4})
    assert answered.rows_per_step == 4
