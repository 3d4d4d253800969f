"""Values with their intervals as dots on lines, under headings: the overview of retention, the forest of gaps, shares.

Each line has its name at the left and its figures at the right, so that nothing has to be read off the axis. Places are
set in inches: the height of a line does not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from indelible.numbers.estimate import Estimate
from indelible.numbers.words import points
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
        "unclear": (INK, "o"),
        "rise": (COLOURS["kept"], ">"),
        "fall": (COLOURS["edited"], "<"),
        "mean": (STRONG, "D"),
    }
)
"""Name of a style -> colour and marker."""


@dataclass(frozen=True)
class Dot:
    """One line.

    Attributes:
        label: at the left; may be empty.
        style: a key of `STYLES`.
        value: where the dot stands; None for a line that only says so.
        interval: of the value, or None.
        text: at the right: the figures, or why there are none.
    """

    label: str
    style: str
    value: float | None
    interval: Estimate | None
    text: str


@dataclass(frozen=True)
class Block:
    """Lines under one heading; no heading where it is empty."""

    heading: str
    dots: Sequence[Dot]


def direction(interval: Estimate | None) -> str:
    """The style of a difference: "more" or "less" where its interval excludes zero, else "unclear"."""
    return {1: "more", -1: "less"}.get(interval.side if interval else 0, "unclear")


def change(interval: Estimate | None) -> str:
    """The style of a change of a rate: "rise" or "fall" where its interval excludes zero, else "unclear"."""
    return {"more": "rise", "less": "fall", "unclear": "unclear"}[direction(interval)]


def dot_plot(blocks: Sequence[Block], *, label: str, differences: bool = False, key: Sequence[str] = ()) -> Figure:
    """Draw the lines, from top to bottom.

    Args:
        blocks: what to draw.
        label: of the axis.
        differences: whether the axis is of differences, in points around zero, rather than of shares.
        key: series to explain above the axis.
    """
    dots = [dot for block in blocks for dot in block.dots]
    left = 0.1 + CHARACTER * min(max((len(dot.label) for dot in dots), default=0), LONGEST_LABEL)
    right = 0.15 + CHARACTER * max((len(dot.text) for dot in dots), default=0)
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
                at -= 0.75
                figure.text(
                    0.06 / width,
                    (bottom + LINE * at) / height,
                    shortened(block.heading, LONGEST_HEADING),
                    color=STRONG,
                    fontsize=8.5,
                    fontweight="bold",
                    va="center",
                    parse_math=False,
                )
                at -= 0.45
            if differences:  # beside the lines only, not through the headings
                axes.plot([0, 0], [at, at - len(block.dots)], color=INK, linewidth=0.9, solid_capstyle="butt")
            for dot in block.dots:
                at -= 0.5
                _draw(axes, dot, at)
                at -= 0.5
            at -= 0.35
        _dress(axes, dots, differences)
        figure.text(0.5, 0.12 / height, label, ha="center", color=INK, fontsize=8)
        if key:
            handles = [
                Line2D([], [], color=STYLES[name][0], marker=STYLES[name][1], markersize=5, lw=1.8) for name in key
            ]
            figure.legend(
                handles,
                [LABELS[name] for name in key],
                loc="upper left",
                ncols=len(key),
                frameon=False,
                fontsize=8.5,
                labelcolor=INK,
                borderpad=0,
            )
    return figure


def _draw(axes: Axes, dot: Dot, height: float) -> None:
    """One line: its name, its interval, its dot, its figures."""
    colour, marker = STYLES[dot.style]
    if dot.label:
        axes.annotate(
            shortened(dot.label, LONGEST_LABEL),
            (0, height),
            xycoords=("axes fraction", "data"),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8,
            color=INK,
            parse_math=False,
        )
    if dot.value is not None:
        if dot.interval is not None and dot.interval.low is not None and dot.interval.high is not None:
            ends = [dot.interval.low, dot.interval.high]
            axes.plot(ends, [height, height], color=colour, linewidth=1.8, solid_capstyle="butt")
        axes.plot([dot.value], [height], color=colour, marker=marker, markersize=5, clip_on=False)
    axes.annotate(
        dot.text,
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(8, 0),
        textcoords="offset points",
        color=colour,
        fontsize=8,
        va="center",
    )


def _dress(axes: Axes, dots: Sequence[Dot], differences: bool) -> None:
    axes.set_yticks([])
    plain_axes(axes, axis="x")
    axes.spines["left"].set_visible(False)
    if not differences:
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        return
    reached = [dot.value for dot in dots if dot.value is not None]
    intervals = [dot.interval for dot in dots if dot.interval is not None]
    reached += [end for found in intervals for end in (found.low, found.high) if end is not None]
    low, high = min([*reached, -0.05]), max([*reached, 0.05])
    spare = 0.04 * (high - low)
    axes.set_xlim(low - spare, high + spare)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: points(value)))
