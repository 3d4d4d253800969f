"""Values with their intervals as dots on lines, under headings: the overview of retention, the forest of gaps, shares.

Each line has its name at the left and its figures at the right, so that nothing has to be read off the axis. Places are
set in inches: the height of a line does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import Unit
from indelible.numbers.words import in_percent, in_unit, nats, points
from indelible.report.drawing.style import COLOURS, INK, LABELS, MARKERS, STRONG, plain_axes, shortened, style

LONGEST_LABEL = 34
LONGEST_HEADING = 48
LINE = 0.185
"""Inches that one line of text takes."""
CHARACTER = 0.067
"""Inches that a character takes at 8 points, on average and a little more."""
STYLES = MappingProxyType(
    {
        **{name: (COLOURS[name], MARKERS[name]) for name in MARKERS},
        "more": (COLOURS["edited"], ">"),
        "less": (COLOURS["intrinsic"], "<"),
        "behind": (COLOURS["edited"], "<"),
        "ahead": (COLOURS["intrinsic"], ">"),
        "unclear": (INK, "o"),
        "rise": (COLOURS["kept"], ">"),
        "fall": (COLOURS["edited"], "<"),
    }
)
"""Name of a style -> colour and marker."""


@dataclass(frozen=True)
class Dot:
    """One line: a label at the left (or none), a key of `STYLES`, where the dot and its interval stand, and at the
    right, in place of the figures, why there are none."""

    label: str
    style: str
    estimate: Estimate
    text: str = ""


@dataclass(frozen=True)
class Block:
    """Lines under one heading; no heading where it is empty."""

    heading: str
    dots: Sequence[Dot]


def direction(difference: Estimate) -> str:
    """The style of a difference: "more" or "less" where its interval excludes zero, else "unclear"."""
    return ("unclear", "more", "less")[difference.side]


def dot_plot(
    blocks: Sequence[Block], *, label: str, differences: Unit | None = None, key: Sequence[str] = ()
) -> Figure:
    """Draw the lines, from top to bottom, over an axis of differences of a unit around zero, or of shares; ``key`` has
    the series to explain above it."""

    def write(found: Estimate) -> str:
        return in_unit(found, differences) if differences else in_percent(found)

    dots = [dot for block in blocks for dot in block.dots]
    left = 0.1 + CHARACTER * min(max((len(dot.label) for dot in dots), default=0), LONGEST_LABEL)
    right = 0.15 + CHARACTER * max((len(dot.text or write(dot.estimate)) for dot in dots), default=0)
    plot = max(4.3 - left - right, 1.4)
    width = left + plot + right
    lines = sum(len(block.dots) + (1.2 if block.heading else 0) + 0.35 for block in blocks)
    top, bottom = (0.3 if key else 0.08), 0.46
    height = top + LINE * lines + bottom
    with style():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((left / width, bottom / height, plot / width, LINE * lines / height))
        axes.set_ylim(0, lines)
        at = lines - 0.15
        for block in blocks:
            if block.heading:
                place = (0.06 / width, (bottom + LINE * (at - 0.75)) / height)
                words = shortened(block.heading, LONGEST_HEADING)
                look: dict[str, Any] = {"color": STRONG, "fontsize": 8.5, "fontweight": "bold", "va": "center"}
                figure.text(*place, words, **look, parse_math=False)
                at -= 1.2
            if differences:  # beside the lines only, not through the headings
                axes.plot([0, 0], [at, at - len(block.dots)], color=INK, linewidth=0.9, solid_capstyle="butt")
            for number, dot in enumerate(block.dots):
                _draw(axes, dot, dot.text or write(dot.estimate), at - number - 0.5)
            at -= len(block.dots) + 0.35
        _dress(axes, dots, differences)
        figure.text(0.5, 0.12 / height, label, ha="center", color=INK, fontsize=8)
        if key:
            figure.legend(
                [Line2D([], [], color=STYLES[name][0], marker=STYLES[name][1], markersize=5, lw=1.8) for name in key],
                [LABELS[name] for name in key],
                loc="upper left",
                ncols=len(key),
                frameon=False,
                fontsize=8.5,
                labelcolor=INK,
                borderpad=0,
            )
    return figure


def _draw(axes: Axes, dot: Dot, text: str, height: float) -> None:
    """One line: its name, its interval, its dot, its figures."""
    colour, marker = STYLES[dot.style]
    at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    beside = at | {"fontsize": 8, "va": "center"}
    if dot.label:
        name = shortened(dot.label, LONGEST_LABEL)
        axes.annotate(name, (0, height), xytext=(-6, 0), ha="right", color=INK, parse_math=False, **beside)
    found = dot.estimate
    if found.value is not None:
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [height] * 2, color=colour, linewidth=1.8, solid_capstyle="butt")
        axes.plot([found.value], [height], color=colour, marker=marker, markersize=5, clip_on=False)
    axes.annotate(text, (1, height), xytext=(8, 0), color=colour, **beside)


def _dress(axes: Axes, dots: Sequence[Dot], differences: Unit | None) -> None:
    axes.set_yticks([])
    plain_axes(axes, axis="x")
    axes.spines["left"].set_visible(False)
    if not differences:
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        return
    found = [dot.estimate for dot in dots]
    reached = [end for one in found for end in (one.value, one.low, one.high) if end is not None]
    low, high = min([*reached, -0.05]), max([*reached, 0.05])
    spare = 0.04 * (high - low)
    axes.set_xlim(low - spare, high + spare)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: (points if differences == "share" else nats)(value)))
