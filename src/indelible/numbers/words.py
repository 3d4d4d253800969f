"""Tables as text, and how figures are written in them, for the command line and the report alike; without pandas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import Measure, Unit, measures

MISSING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
UNITS: Mapping[Unit, str] = MappingProxyType({"share": "points", "nats": "nats"})
"""In what a difference is said."""
ROUNDING = 1e-9
"""Points of difference between what are the same sums of fractions."""


def headline(summary: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The headline table of a summary (`summary.summarise`, or the same read from JSON), columns and one row per arm:
    rates in percent, what does not apply as a dash."""
    shown = measures("headline")
    rows = [
        [
            str(arm["arm"]),
            str(arm["editor"]),
            *(cell(arm, measure) for measure in shown),
            change(arm["figure"], arm["downstream_before"], arm["downstream_after"]),
            duration(arm["seconds"]),
        ]
        for arm in summary
    ]
    return ["arm", "editor", *map(heading, shown), "downstream", "time"], rows


def heading(measure: Measure) -> str:
    """What stands above the column of a measure."""
    unit = f", {UNITS[measure.unit]} [95%]" if measure.differences or measure.unit == "nats" else ""
    return f"{measure.heading or measure.label}{unit}"


def cell(arm: Mapping[str, Any], measure: Measure) -> str:
    """A measure in one line of a summary, as `figure` has it."""
    value, low, high = (arm.get(f"{measure.name}{end}") for end in ("", "_low", "_high"))
    return figure(Estimate(value, low, high), measure)


def figure(found: Estimate, measure: Measure) -> str:
    """A figure with its interval: a share in percent, a difference in points, a loss in nats."""
    return in_unit(found, measure.unit) if measure.differences or measure.unit == "nats" else in_percent(found)


def in_unit(difference: Estimate, unit: Unit) -> str:
    """A difference with its interval, without the name of its unit."""
    return in_points(difference) if unit == "share" else in_nats(difference)


def size(value: float, unit: Unit) -> str:
    """How large an effect is, with its unit: "5 points", "0.2 nats"."""
    return f"{value * 100:.3g} points" if unit == "share" else f"{value:.2g} nats"


def percent(rate: float | None) -> str:
    """A fraction as whole percent, rounded half up: 0.625 -> "63%"; a part of a whole can be below zero or above one.

    "0%" and "100%" mean none and all; what only comes near them is shown with a decimal.
    """
    if rate is None or _missing(rate):
        return MISSING
    if rate < 0:
        return f"{MINUS}{percent(-rate)}"
    whole = int(rate * 100 + 0.5)
    if whole in (0, 100) and rate not in (0.0, 1.0):
        near = min(max(rate * 100, 0.1), 99.9) if rate < 1 else max(rate * 100, 100.1)
        return f"{near:.1f}%"
    return f"{whole}%"


def percent_with_interval(rate: float | None, low: float | None, high: float | None) -> str:
    """A fraction with its interval, in percent: "61% [50%, 72%]"; without one, just the fraction."""
    if _missing(rate, low, high):
        return percent(rate)
    return f"{percent(rate)} [{percent(low)}, {percent(high)}]"


def points(difference: float | None) -> str:
    """A difference of fractions in signed percentage points: -0.031 -> "−3".

    Below half a point one decimal is shown, a tenth at least, so that an interval that just misses zero doesn't seem to
    touch it.
    """
    if difference is None or _missing(difference):
        return MISSING
    size = abs(difference) * 100
    if size < ROUNDING:
        return "0"
    return f"{'+' if difference > 0 else MINUS}{int(size + 0.5) if size >= 0.5 else f'{max(size, 0.1):.1f}'}"


def points_with_interval(difference: float | None, low: float | None, high: float | None) -> str:
    """A difference with its interval, in percentage points: "+19 [+6, +31]"; without one, just the difference."""
    return _with_interval(points, difference, low, high)


def nats(difference: float | None) -> str:
    """A difference of log-odds, signed, to the hundredth: -0.314 -> "−0.31".

    Below half of that three decimals are shown, a thousandth at least, so that an interval that just misses zero
    doesn't seem to touch it.
    """
    if difference is None or _missing(difference):
        return MISSING
    size = abs(difference)
    if size < ROUNDING:
        return "0"
    return f"{'+' if difference > 0 else MINUS}{f'{size:.2f}' if size >= 0.005 else f'{max(size, 0.001):.3f}'}"


def nats_with_interval(difference: float | None, low: float | None, high: float | None) -> str:
    """A difference with its interval, in nats: "+0.31 [+0.10, +0.52]"; without one, just the difference."""
    return _with_interval(nats, difference, low, high)


def _with_interval(
    said: Callable[[float | None], str], difference: float | None, low: float | None, high: float | None
) -> str:
    if _missing(difference, low, high):
        return said(difference)
    return f"{said(difference)} [{said(low)}, {said(high)}]"


def in_nats(difference: Estimate) -> str:
    """A difference of log-odds with its interval: "+0.31 [+0.10, +0.52]"."""
    return nats_with_interval(difference.value, difference.low, difference.high)


def in_percent(share: Estimate) -> str:
    """A share with its interval: "61% [50%, 72%]"."""
    return percent_with_interval(share.value, share.low, share.high)


def in_points(difference: Estimate) -> str:
    """A difference of shares with its interval, in percentage points: "+19 [+6, +31]"."""
    return points_with_interval(difference.value, difference.low, difference.high)


def change(figure: str | None, before: float | None, after: float | None) -> str:
    """A downstream figure before and after tuning: "loss 3.21 → 2.87"."""
    if before is None and after is None:
        return MISSING
    name = f"{figure.replace('_', ' ')} " if figure else ""
    return f"{name}{_figure(before)} \N{RIGHTWARDS ARROW} {_figure(after)}"


def finite(value: float) -> float | None:
    """A number for JSON, which has no word for what is none or has no end."""
    return value if math.isfinite(value) else None


def counted(number: int, noun: str) -> str:
    """A number of things as people say it: "1 fact", "2,400 facts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: "48 s", "3 min 05 s", "2 h 10 min", "12 days"."""
    if seconds is None:
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 72 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{round(whole / 86_400):,} days"


def between(span: tuple[float, float]) -> str:
    """A span as people say it: "48 s to 3 min 05 s"."""
    low, high = map(duration, span)
    return low if low == high else f"{low} to {high}"


def p_value(value: float | None) -> str:
    """A p-value as papers print it."""
    return MISSING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _missing(*values: float | None) -> bool:
    """Whether any is None or NaN, as tables say it."""
    return any(value is None or value != value for value in values)


def _figure(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"
