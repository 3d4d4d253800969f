"""Arms made complete: study-wide settings, an arm's own, and the rooms' defaults."""

from __future__ import annotations

from typing import Any

import pytest

from indelible.errors import ConfigError
from indelible.study.design.arms import resolve_arms
from indelible.study.design.settings import StudyConfig


def config(**changes: Any) -> StudyConfig:
    arms = [{"name": "x", "editor": "memit"}]
    return StudyConfig.model_validate({"name": "a", "model": "m", "arms": arms, **changes})


def test_an_arm_goes_before_its_study_and_the_study_before_the_defaults() -> None:
    arms = [
        {"name": "x", "editor": "memit", "tuning": {"steps": 7}, "options": {"clamp": 0.5}},
        {"name": "y", "editor": "memit"},
        {"name": "z", "editor": "none"},
    ]
    wide = {"tuning": {"steps": 5, "batch_size": 2}, "editors": {"memit": {"clamp": 0.6, "steps": 3}}}
    x, y, z = resolve_arms(config(arms=arms, **wide))
    assert (x.tuning.steps, x.tuning.batch_size) == (7, 2)
    assert y.tuning.steps == 5
    assert (x.editor.clamp, x.editor.steps) == (0.5, 3)
    assert (y.editor.clamp, y.editor.steps) == (0.6, 3)
    assert z.editor is None and z.editor_name == "none"


def test_what_is_left_to_the_machine_is_decided() -> None:
    (arm,) = resolve_arms(config())
    assert arm.tuning.precision in {"fp32", "bf16-mixed"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": [{"name": "x", "editor": "rom"}]}, "Unknown editor 'rom' in 'arms.x'. Did you mean 'rome'"),
        ({"arms": [{"name": "x", "editor": "ft", "mask": "nun"}]}, "Unknown mask 'nun' in 'arms.x'"),
        ({"editors": {"memit": {"clamp": "tight"}}}, "'editors.memit.clamp'"),
        ({"tuning": {"objective": "txt"}}, "Unknown objective 'txt' in 'tuning'. Did you mean 'text'"),
    ],
)
def test_what_no_room_knows_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_arms(config(**changes))
    assert said in str(caught.value)
