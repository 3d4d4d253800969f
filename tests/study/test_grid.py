"""Arms written as a cross product of axes."""

from __future__ import annotations

from pathlib import Path

import pytest

from indelible.errors import ConfigError
from indelible.study.design.config import parse_config
from indelible.study.design.settings import StudyConfig

GRID = """
name: g
model: m
tuning: {steps: 9}
grid:
  editor: [memit, ft]
  objective:
    text: {tuning: {objective: text, learning_rate: 1.0e-4}}
    reason: {tuning: {objective: reason}, options: {steps: 3}}
  mask: [none, edited-layers]
arms:
  - {name: control, editor: none}
"""


def parse(text: str, *overrides: str) -> StudyConfig:
    return parse_config(text, "g.yaml", Path("/somewhere"), overrides)


def test_axes_are_crossed_the_last_one_fastest_and_written_out_arms_follow() -> None:
    arms = parse(GRID).arms
    assert [arm.name for arm in arms] == [
        "memit, text, nothing frozen",
        "memit, text, edited-layers",
        "memit, reason, nothing frozen",
        "memit, reason, edited-layers",
        "ft, text, nothing frozen",
        "ft, text, edited-layers",
        "ft, reason, nothing frozen",
        "ft, reason, edited-layers",
        "control",
    ]
    third = arms[2]
    assert (third.editor, third.mask, third.options) == ("memit", "none", {"steps": 3})
    assert third.tuning == {"objective": "reason"}
    assert arms[0].tuning == {"objective": "text", "learning_rate": 1e-4}


def test_an_axis_of_editors_may_hold_the_control() -> None:
    arms = parse(GRID, "grid.editor=[memit, none]", "grid.mask=[none]").arms
    assert [(arm.name, arm.editor) for arm in arms[2:4]] == [
        ("control, text, nothing frozen", "none"),
        ("control, reason, nothing frozen", "none"),
    ]
    assert arms[2].tuning == arms[0].tuning


def test_a_grid_reads_back_as_the_arms_that_it_stands_for() -> None:
    config = parse(GRID)
    assert parse(config.to_yaml()) == config


def test_overrides_reach_axes_before_and_arms_after_they_are_crossed() -> None:
    config = parse(
        GRID, "arms.control.tuning.steps=2", "grid.editor=[memit]", "arms.memit, text, edited-layers.mask=head"
    )
    assert len(config.arms) == 5
    assert config.arms[4].tuning == {"steps": 2}
    assert config.arms[1].mask == "head"


def test_axes_of_paraphrases_and_of_labels_that_set_one_mapping_together() -> None:
    text = """
name: g
model: m
grid:
  paraphrases: [0, 1, 3]
  tuner:
    full: {editor: memit, tuning: {tuner: full}}
    lora: {editor: memit, tuning: {tuner: lora}}
  length:
    short: {tuning: {steps: 2}}
"""
    arms = parse(text).arms
    assert [arm.name for arm in arms][:3] == [
        "0 paraphrases, full, short",
        "0 paraphrases, lora, short",
        "1 paraphrase, full, short",
    ]
    assert arms[1].tuning == {"tuner": "lora", "steps": 2}


def test_protections_with_options_are_labels_as_tables_have_them() -> None:
    text = "name: g\nmodel: m\ngrid: {editor: [memit], protect: [none, near+replay, {near: {weight: 3}, replay: {}}]}\n"
    names = [arm.name for arm in parse(text).arms]
    assert names == ["memit, unprotected", "memit, near+replay", "memit, near(weight=3.0)+replay"]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ("[]", "'grid' is []"),
        ("{editor: []}", "'grid.editor' is []"),
        ("{editor: memit}", "'grid.editor' is 'memit'"),
        ("{objective: [text]}", "no key 'objective'"),
        ("{size: {small: {stepz: 3}}}", "'small' sets {'stepz': 3}"),
        ("{editor: [memit], protect: [{near: 3}]}", "'grid.protect.near' should be a mapping"),
        ("{editor: [memit], size: {small: {editor: ft}}}", "'editor' is 'memit' by one axis and 'ft' by another"),
        (
            "{a: {x: {options: {steps: 1}}}, b: {y: {options: {steps: {z: 1}}}}, editor: [memit]}",
            "two axes set 'steps'",
        ),
    ],
)
def test_a_grid_that_cannot_be_crossed_is_named(grid: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"name: g\nmodel: m\ngrid: {grid}\n")
    assert said in str(caught.value)
