"""A grid of arms at a glance: one cell per editor and objective, its value written in it and shown by its colour.

Colours are washes of a series' own colour over the paper, so that the same cells read in light and dark.
"""

from __future__ import annotations

from itertools import product
from math import isnan
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from indelible.numbers.words import MISSING, percent, points
from indelible.report.drawing.style import COLOURS, INK, STRONG, shortened, style

WEAKEST_WASH, STRONGEST_WASH = 0.04, 0.5
"""Opacity of the weakest and the strongest colour: text on it must stay readable."""
LONGEST_NAME = 18
CELL = (0.85, 0.34)
"""Inches across and down."""


def heat_map(cells: pd.DataFrame, kind: Literal["share", "difference"]) -> Figure:
    """Draw cells (fractions, by what stands at the left and above; NaN where there is none): shares run from 0 to 1 in
    one colour, differences both ways from zero in two."""
    down, across = ([str(name) for name in names] for names in (cells.index, cells.columns))
    names = 0.15 + 0.062 * min(max(map(len, down)), LONGEST_NAME)
    grid = CELL[0] * len(across), CELL[1] * len(down)
    width, height = names + grid[0] + 0.05, grid[1] + 0.35
    values = cells.to_numpy(dtype=np.float64)
    largest = float(np.nanmax(np.abs(values))) or 1.0
    with style():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((names / width, 0.03 / height, grid[0] / width, grid[1] / height))
        for y, x in product(range(len(down)), range(len(across))):
            value = float(values[y, x])
            middle: dict[str, Any] = {"x": x + 0.5, "y": y + 0.5, "ha": "center", "va": "center", "color": STRONG}
            if isnan(value):
                axes.text(**middle, s=MISSING, fontsize=9)
                continue
            if kind == "share":
                series, wash, text = "kept", value, percent(value)
            else:
                series, wash, text = "edited" if value > 0 else "intrinsic", abs(value) / largest, points(value)
            opacity = WEAKEST_WASH + (STRONGEST_WASH - WEAKEST_WASH) * wash
            colour = COLOURS[series]
            axes.add_patch(Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, facecolor=colour, alpha=opacity, linewidth=0))
            axes.text(**middle, s=text, fontsize=9)
        axes.set_xlim(0, len(across))
        axes.set_ylim(len(down), 0)
        axes.xaxis.tick_top()
        words: dict[str, Any] = {"color": INK, "fontsize": 8, "parse_math": False}
        axes.set_xticks([x + 0.5 for x in range(len(across))], [shortened(name, 13) for name in across], **words)
        axes.set_yticks([y + 0.5 for y in range(len(down))], [shortened(name, LONGEST_NAME) for name in down], **words)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure
