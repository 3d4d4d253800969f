"""When a run ends before its steps are used up: figures that were reached, patience that is at its end.

Reaching the same held-out figure in every arm is what makes arms comparable ("matched utility"): one that has learned
less would look durable for that reason alone. The published protocol, a held-out loss below a value, is the same rule.
Held-out rows differ by seed, and so does what is within reach: "-5%" is counted from the figure of the unedited model,
so that it is one figure for all arms of a seed. Counted from the edited model's own, an edit that had done more damage
would be let off with less training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from indelible.errors import ConfigError
from indelible.tuning.objective import Objective
from indelible.tuning.settings import TuningSettings


class StopRules:
    """The rules of one run, told of its held-out figures as they come; ConfigError for a change that is wanted relative
    to a figure ``before`` (of the unedited model, where it is known) of zero or less. ``reached`` says whether every
    figure of ``stop_at`` was at the last look; None without the rule."""

    def __init__(self, settings: TuningSettings, objective: Objective[Any], before: Mapping[str, float]) -> None:
        self._wanted = {
            objective.figure(name): _figure_wanted(name, value, before[name])
            for name, value in settings.stop_at.items()
        }
        self._utility = objective.figures[0]
        self._patience = settings.patience
        self._best: float | None = None
        self._waited = 0
        self.reached: bool | None = False if self._wanted else None

    @property
    def wanted(self) -> dict[str, float]:
        """Figure -> the value that ends the run."""
        return {figure.name: value for figure, value in self._wanted.items()}

    @property
    def utility(self) -> str:
        """The figure that runs are compared at."""
        return self._utility.name

    @property
    def names(self) -> tuple[str, ...]:
        """The figures that the rules need, or the utility where there are none; others may cost more."""
        wanted = [figure.name for figure in self._wanted]
        needed = [self._utility.name] if self._patience is not None or not wanted else []
        return tuple(dict.fromkeys([*needed, *wanted]))

    def stop(self, figures: Mapping[str, float]) -> bool:
        """Whether the run should end, given its held-out figures now."""
        if self._wanted:
            self.reached = all(figure.reached(figures[figure.name], value) for figure, value in self._wanted.items())
        return bool(self.reached) or (self._patience is not None and self._waits(figures) >= self._patience)

    def _waits(self, figures: Mapping[str, float]) -> int:
        """Looks in a row that brought no better utility, this one included."""
        value = figures[self._utility.name]
        if self._best is None or self._utility.improves(value, self._best):
            self._best, self._waited = value, 0
        else:
            self._waited += 1
        return self._waited


def _figure_wanted(name: str, value: float | str, before: float) -> float:
    """The figure itself, or what "-5%" makes of the one before."""
    if not isinstance(value, str):
        return value
    if before <= 0:  # a share of it is no way to go: it would be reached before the first step, or lead backwards
        raise ConfigError(
            f"The held-out {name} is {before:g} before tuning, of which no {value} can be taken.",
            f"Give an absolute figure in stop_at, e.g. {{{name}: 0.2}}.",
        )
    return before * (1 + float(value.rstrip("%")) / 100)
