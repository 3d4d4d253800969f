"""The picture that opens a report: what is answered in base, after the edit and after tuning, a panel for each arm.

Panels share an axis that begins below all that edited and tuned models answer: what lies lower, as a new object that
the unedited model does not say, is a number at its foot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator, PercentFormatter

from indelible.numbers.measures import PHASES
from indelible.numbers.words import percent
from indelible.report.drawing.style import COLOURS, INK, STRONG, look, plain_axes, shortened, style

TITLES = {
    "edited": "edits, of all",
    "paraphrase": "held-out wordings of edits, of all",
    "intrinsic": "intrinsic facts, of those in base",
    "control": "the same without any edit (95% interval)",
}
MOST_ABREAST = 5
WIDE, NARROW = 10.0, 3.45
"""Inches of the figure on a page and on a phone."""
HIGH = 1.95
"""Inches of a panel; less where there are many rows of them."""
APART = 0.065
"""Least distance of two numbers beside each other, as a part of the axis."""


def phases(points: pd.DataFrame, arms: Sequence[str], names: Sequence[str], *, narrow: bool = False) -> Figure:
    """Draw the panels.

    Args:
        points: arm, series (a key of `TITLES`), phase, value, low and high (fractions, NaN where there are none).
        arms: a panel each.
        names: what stands above them.
        narrow: two abreast, for a phone.
    """
    abreast = min(len(arms), 2) if narrow else _abreast(len(arms))
    rows = -(-len(arms) // abreast)
    width, high = (NARROW, 1.45) if narrow else (WIDE, HIGH if rows > 1 else 2.5)
    left, between, step, top = 0.42, 0.42 if narrow else 0.5, high + 0.56, 0.8 if narrow else 0.3
    wide = min((width - left - abreast * between) / abreast, 4.2)
    height = top + rows * step + 0.14
    shown = [name for name in TITLES if name in set(points["series"])]
    floor = _floor(points)
    with style():
        figure = Figure(figsize=(width, height))
        for place, (arm, name) in enumerate(zip(arms, names, strict=True)):
            row, column = divmod(place, abreast)
            x, y = left + column * (wide + between), height - top - row * step - 0.24 - high
            axes = figure.add_axes((x / width, y / height, wide / width, high / height))
            _panel(axes, points[points["arm"] == arm], floor, first=column == 0)
            title = shortened(name, int(wide / 0.078))
            axes.set_title(title, fontsize=8.5, color=STRONG, fontweight="bold", loc="left", parse_math=False)
        figure.legend(
            [_handle(name) for name in shown],
            [TITLES[name] for name in shown],
            loc="upper left",
            ncols=1 if narrow else len(shown),
            frameon=False,
            fontsize=8 if narrow else 8.5,
            labelcolor=INK,
            borderpad=0,
            borderaxespad=0,
            labelspacing=0.3,
        )
        if floor and not narrow:
            figure.text(1, 0, f"axes begin at {percent(floor)}", ha="right", va="bottom", color=INK, fontsize=7.5)
    return figure


def _abreast(panels: int) -> int:
    """How many stand beside each other, so that the last row has the fewest gaps."""
    if panels <= MOST_ABREAST:
        return max(panels, 2)
    return min(range(MOST_ABREAST, 2, -1), key=lambda number: -panels % number)


def _floor(points: pd.DataFrame) -> float:
    """Where the axis begins: a tenth below all that was answered after the edit, and zero where that is near; intervals
    may reach farther down."""
    later = points[points["phase"].isin(PHASES[1:])]
    lowest = float(later["value"].min()) if len(later) else 0.0
    floor = np.floor(lowest * 10 - 0.5) / 10
    return float(floor) if floor >= 0.2 else 0.0


def _handle(series: str) -> Any:
    if series == "control":
        return Patch(facecolor=COLOURS["control"], alpha=0.2, linewidth=0)
    return Line2D([], [], markersize=5, lw=1.8, **look(series))


def _panel(axes: Axes, points: pd.DataFrame, floor: float, *, first: bool) -> None:
    at = {phase: place for place, phase in enumerate(PHASES)}
    numbers: list[tuple[float, str, str]] = []
    rises: list[tuple[float, str, str]] = []  # what comes from below the axis: where, from how much
    for series, own in points.groupby("series", sort=False):
        own = own[own["value"].notna()]
        x, y = own["phase"].map(at).to_numpy(np.float64), own["value"].to_numpy(np.float64)
        low, high = (own[end].fillna(own["value"]).to_numpy(np.float64) for end in ("low", "high"))
        if series == "control":
            axes.fill_between(x, low, high, color=COLOURS["control"], alpha=0.2, linewidth=0, zorder=1)
            continue
        aside = {"edited": 0.0, "paraphrase": 0.05, "intrinsic": -0.05}[str(series)]
        drawn = look(str(series))
        at_x, above = x + aside * (x > 0), y >= floor
        axes.plot(at_x, y, lw=1.8, zorder=3, **(drawn | {"marker": ""}))
        axes.plot(at_x[above], y[above], markersize=5, clip_on=False, zorder=3, **(drawn | {"linestyle": "none"}))
        for one, bottom, top in zip(x, np.maximum(low, floor), high, strict=True):
            if one > 0 and bottom < top:
                axes.plot([one + aside] * 2, [bottom, top], color=drawn["color"], lw=1.1, alpha=0.7, zorder=2)
        if len(own) and own["phase"].iloc[-1] == PHASES[-1]:
            numbers.append((float(y[-1]), percent(float(y[-1])), drawn["color"]))
        if len(own) > 1 and not above[0] and above[1]:
            rises.append(((floor - y[0]) / (y[1] - y[0]), percent(float(y[0])), drawn["color"]))
    if rises:  # edits and their held-out wordings, beside the last of them
        said: dict[str, Any] = {"xytext": (9, 2), "textcoords": "offset points", "va": "bottom", "fontsize": 7.5}
        axes.annotate(f"from {rises[0][1]}", (max(rises)[0], floor), color=rises[0][2], **said)
    axes.set_xlim(-0.12, 2.12)
    axes.set_ylim(floor, 1.0)
    for place, (_, text, colour) in zip(_apart([number[0] for number in numbers], floor), numbers, strict=True):
        beside: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
        axes.annotate(text, (1, place), xycoords=("axes fraction", "data"), color=colour, **beside)
    if PHASES[-1] not in set(points.loc[points["series"] != "control", "phase"]):
        axes.text(2, (1 + floor) / 2, "not tuned", ha="right", color=INK, fontsize=8)
    axes.set_xticks(range(len(PHASES)), PHASES, fontsize=8)
    axes.yaxis.set_major_locator(MultipleLocator(0.2 if floor < 0.5 else 0.1))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    plain_axes(axes, axis="y")
    axes.tick_params(axis="y", labelsize=7.5, labelleft=first)


def _apart(values: Sequence[float], floor: float) -> list[float]:
    """Places for numbers beside their points, moved up or down until none covers another."""
    least = APART * (1 - floor)
    order = np.argsort(values)
    places = np.asarray(values, np.float64)[order]
    for _ in range(20):
        for upper in range(1, len(places)):
            missing = least - (places[upper] - places[upper - 1])
            if missing > 1e-9:
                places[upper - 1] -= missing / 2
                places[upper] += missing / 2
    if len(places):
        places += max(0.0, floor - places[0])  # not among the names of the phases
    found = np.empty_like(places)
    found[order] = places
    return [float(place) for place in found]
