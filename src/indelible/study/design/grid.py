"""Arms as a cross product: a few axes in a study file in place of dozens of arms that are written out.

    grid:
      editor: [memit, alphaedit]                     # values of one of an arm's own keys
      objective:                                     # or any name: labels with what each sets in an arm
        text: {tuning: {objective: text, steps: 24}}
        reason: {tuning: {objective: reason, steps: 24}}
      mask: [none, edited-layers]

stands for eight arms, named by their labels ("memit, text, nothing frozen"). Arms that are written out beside it, such
as controls, stay, after those of the grid. The editor "none" on the axis of editors is a control for every choice of
the others ("control, text, nothing frozen"), tuned with the same settings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from indelible.errors import ConfigError
from indelible.study.design.settings import MOST_RUNS, check_runs
from indelible.tuning.protection import protections_from

ARM_KEYS = ("editor", "paraphrases", "protocol", "mask", "protect", "tuning", "options", "explain")
"""What an axis can set in an arm."""
PLAIN_KEYS = ("editor", "paraphrases", "mask", "protect")
"""Those whose values an axis can list."""


def with_grid(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with ``grid`` written out as arms, the last axis turning fastest; without a grid, as they are.

    Raises:
        ConfigError: an axis is empty, or neither a list of values of an arm's key nor labels with settings; two axes
            set one thing to different values; or there are more arms than the study may have runs.
    """
    if "grid" not in settings:
        return dict(settings)
    grid, own = settings["grid"], settings.get("arms") or []
    if not isinstance(grid, Mapping) or not grid:
        raise ConfigError(f"'grid' is {grid!r}.", "Give it axes, e.g. editor: [memit, alphaedit].")
    axes = [_axis(str(name), values) for name, values in grid.items()]
    if isinstance(most := settings.get("most_runs", MOST_RUNS), int):
        check_runs(math.prod(map(len, axes)), most, "'grid' stands for")
    arms = [_arm(choice) for choice in itertools.product(*axes)]
    rest = {key: value for key, value in settings.items() if key not in ("grid", "arms")}
    return {**rest, "arms": [*arms, *own] if isinstance(own, list) else own}


def _axis(name: str, values: Any) -> list[tuple[str, dict[str, Any]]]:
    """Labels with what each sets."""
    where = f"'grid.{name}'"
    if isinstance(values, Mapping) and values:
        for label, part in values.items():
            if not isinstance(part, Mapping) or not set(part) <= set(ARM_KEYS):
                raise ConfigError(
                    f"{where}: {label!r} sets {part!r}.", f"Set keys of an arm there: {', '.join(ARM_KEYS)}."
                )
        return [(str(label), dict(part)) for label, part in values.items()]
    if isinstance(values, Sequence) and not isinstance(values, str) and values:
        if name not in PLAIN_KEYS:
            raise ConfigError(
                f"{where} is a list, but an arm has no key {name!r} with plain values.",
                f"List values of {', '.join(PLAIN_KEYS)}, or map labels to settings ({', '.join(ARM_KEYS)}).",
            )
        return [(_label(name, value), {name: value}) for value in values]
    raise ConfigError(f"{where} is {values!r}.", "Give a list of values, or labels with what each sets.")


def _label(axis: str, value: Any) -> str:
    """Numbers and "none" need the axis beside them to be understood."""
    if axis == "paraphrases":
        return f"{value} paraphrase{'' if value == 1 else 's'}"
    if axis == "editor" and value == "none":
        return "control"
    if axis == "protect" and (value == "none" or isinstance(value, Mapping)):
        return "+".join(map(str, protections_from(value, "grid.protect"))) or "unprotected"
    if axis == "mask" and value == "none":
        return "nothing frozen"
    return str(value)


def _arm(choice: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    arm: dict[str, Any] = {"name": ", ".join(label for label, _ in choice)}
    for _, part in choice:
        _merge(arm, part, arm["name"])
    return arm


def _merge(into: dict[str, Any], part: Mapping[str, Any], arm: str) -> None:
    for key, value in part.items():
        if isinstance(value, Mapping):
            below = into.setdefault(key, {})
            if not isinstance(below, dict):
                raise ConfigError(f"In arm {arm!r} of the grid two axes set {key!r}.", "Let one axis set it.")
            _merge(below, value, arm)
        elif into.setdefault(key, value) != value:
            raise ConfigError(
                f"In arm {arm!r} of the grid {key!r} is {into[key]!r} by one axis and {value!r} by another.",
                "Let one axis set it.",
            )
