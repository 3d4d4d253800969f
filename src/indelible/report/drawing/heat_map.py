"""A grid of arms at a glance: one cell per editor and objective, its value written in it and shown by its colour.

Colours are washes of a series' own colour over the paper, so that the same cells read in light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from indelible.numbers.words import MISSING, percent, points
from indelible.report.drawing.style import COLOURS, INK, STRONG, shortened, style

STRONGEST_WASH = 0.5
"""Opacity of the strongest colour: text on it must stay readable."""
LONGEST_NAME = 18


@dataclass(frozen=True)
class Heat:
    """Values by row and column.

    Attributes:
        rows: names from top to bottom.
        columns: names from left to right.
        values: (row, column) -> value as a fraction, the mean over the arms there; a cell without any is left out.
        arms: (row, column) -> how many arms that is.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: Mapping[tuple[str, str], float]
    arms: Mapping[tuple[str, str], int]


def heat_map(heat: Heat, kind: Literal["share", "difference"]) -> Figure:
    """Draw the cells.

    Args:
        heat: what to draw.
        kind: shares run from 0 to 1 in one colour; differences run both ways from zero, in two colours.
    """
    names = 0.15 + 0.062 * min(max(len(row) for row in heat.rows), LONGEST_NAME)
    cell = 0.85
    width, height = names + cell * len(heat.columns) + 0.05, 0.34 * len(heat.rows) + 0.35
    largest = max((abs(value) for value in heat.values.values()), default=1.0) or 1.0
    with style():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes(
            (names / width, 0.03 / height, cell * len(heat.columns) / width, 0.34 * len(heat.rows) / height)
        )
        for down, row in enumerate(heat.rows):
            for across, column in enumerate(heat.columns):
                value = heat.values.get((row, column))
                if kind == "share":
                    colour, wash, text = COLOURS["kept"], value or 0.0, percent(value)
                else:
                    colour = COLOURS["edited" if (value or 0) > 0 else "intrinsic"]
                    wash, text = abs(value or 0.0) / largest, points(value)
                axes.add_patch(
                    Rectangle(
                        (across + 0.02, down + 0.04),
                        0.96,
                        0.92,
                        facecolor=colour,
                        alpha=0.0 if value is None else 0.04 + (STRONGEST_WASH - 0.04) * wash,
                        linewidth=0,
                    )
                )
                axes.text(
                    across + 0.5,
                    down + 0.5,
                    MISSING if value is None else text,
                    ha="center",
                    va="center",
                    fontsize=9,
                    color=STRONG,
                )
        axes.set_xlim(0, len(heat.columns))
        axes.set_ylim(len(heat.rows), 0)
        axes.xaxis.tick_top()
        axes.set_xticks(
            [place + 0.5 for place in range(len(heat.columns))],
            [shortened(name, 13) for name in heat.columns],
            color=INK,
            fontsize=8,
            parse_math=False,
        )
        axes.set_yticks(
            [place + 0.5 for place in range(len(heat.rows))],
            [shortened(name, LONGEST_NAME) for name in heat.rows],
            color=INK,
            fontsize=8,
            parse_math=False,
        )
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure
