"""Which arms of a study can be compared: those that differ in one thing, so that a difference has one cause.

Beside the factors that an arm is called by, its protocol, its editor's options and the settings of its tuning have to
agree, but for what a factor brings with it: another editor has options of its own, another tuner its own rate, another
objective its own length and its own figure to stop at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pandas as pd

from indelible.numbers.measures import CONTROL_EDITOR, FACTORS, Factor, require_columns

OF_THE_TUNER = ("tuner", "rank", "alpha", "dropout", "target_modules", "tuner_options", "learning_rate")
"""Settings of tuning that come with the tuner."""
TUNED_ALIKE = ("objective", "tuner", "tuning")
"""In what an arm's control is tuned as the arm is."""

KINDS: tuple[Factor, ...] = ("editor", "objective", "tuner")
"""Factors whose values are so unlike that no mean over them answers a claim."""


@dataclass(frozen=True)
class ArmFactors:
    """What an arm is; ``reached`` says whether every seed stopped at its downstream figure, None without such a rule.
    Its editor's ``options`` and the settings of its ``tuning`` are empty where the run table does not have them."""

    name: str
    factors: Mapping[Factor, str | int]
    reached: bool | None
    protocol: str = "batch"
    options: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)


def arms_of(runs: pd.DataFrame) -> list[ArmFactors]:
    """The arms of a run table that edit something and were asked after tuning in some seed, in order of appearance."""
    require_columns(runs, ["arm", *FACTORS, "reached", "status"], "table of runs")
    arms = []
    for name, own in runs[runs["status"] != "failed"].groupby("arm", sort=False):
        first = own.to_dict("records")[0]
        if first["editor"] == CONTROL_EDITOR:
            continue
        known = own["reached"].dropna()
        arms.append(
            ArmFactors(
                str(name),
                {factor: first[factor] for factor in FACTORS},
                None if known.empty else bool(known.all()),
                str(first.get("protocol", "batch")),
                _settings(first.get("options")),
                _settings(first.get("tuning")),
            )
        )
    return arms


def comparable(arm: ArmFactors, other: ArmFactors, factor: Factor) -> bool:
    """Whether two arms differ in that factor and in nothing that does not come with it."""
    if arm.factors[factor] == other.factors[factor] or arm.protocol != other.protocol:
        return False
    if any(arm.factors[one] != other.factors[one] for one in FACTORS if one != factor):
        return False
    if factor != "editor" and arm.options != other.options:
        return False
    ignored = set(arm.tuning) | set(other.tuning) if factor == "objective" else set[str]()
    ignored |= set(OF_THE_TUNER) if factor == "tuner" else set[str]()
    return _without(arm.tuning, ignored) == _without(other.tuning, ignored)


def family(arm: ArmFactors, compared: Factor | None = None) -> str:
    """What arms have to share to be judged as one: all but the levels of the factor that is compared, where these are
    of one kind (numbers of paraphrases, masks, protections), and the figure reached."""
    alike = [arm.factors[name] for name in FACTORS if name != compared or name in KINDS]
    return json.dumps([*alike, arm.protocol, arm.options, arm.tuning], sort_keys=True)


def factor_between(arm: ArmFactors, other: ArmFactors) -> Factor | None:
    """The factor that alone tells two arms apart; None where more does, or nothing."""
    return next((factor for factor in FACTORS if comparable(arm, other, factor)), None)


def pairs_of_arms(runs: pd.DataFrame) -> Iterator[tuple[ArmFactors, ArmFactors, Factor]]:
    """Arms with an edit that differ in one factor alone, and that factor: (later, earlier) in order of the table."""
    for first, second in combinations(arms_of(runs), 2):
        if (factor := factor_between(first, second)) is not None:
            yield second, first, factor


def pairs_with_control(runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Each arm with an edit and the control that was tuned alike, with the same objective, tuner and settings: that of
    its mask, else the unmasked one."""
    arms = runs.drop_duplicates("arm").to_dict("records")
    controls = [arm for arm in arms if arm["editor"] == CONTROL_EDITOR]
    for arm in arms:
        alike = [one for one in controls if all(one.get(name) == arm.get(name) for name in TUNED_ALIKE)]
        found = [one["arm"] for mask in (arm["mask"], "none") for one in alike if one["mask"] == mask]
        if found and arm["editor"] != CONTROL_EDITOR:
            yield str(arm["arm"]), str(found[0])


def varying(arms: Sequence[ArmFactors]) -> list[Factor]:
    """Factors that take several values."""
    return [factor for factor in FACTORS if len({arm.factors[factor] for arm in arms}) > 1]


def _without(settings: Mapping[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def _settings(text: object) -> Mapping[str, Any]:
    found = json.loads(text) if isinstance(text, str) else {}
    return found if isinstance(found, dict) else {}
