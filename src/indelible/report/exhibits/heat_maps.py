"""The whole grid at a glance: editors against the factor in which arms differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import pandas as pd

from indelible.numbers.words import percent, points
from indelible.report.drawing.heat_map import heat_map
from indelible.report.exhibit import Data, Group, Heading, Part, Picture, Words, exhibit, numbers
from indelible.report.run import Run, Summary

COLUMN_FACTORS = ("objective", "tuner", "mask", "protect", "paraphrases")
"""What the columns can be, the first that differs between arms."""


@exhibit("heat-maps", place=40)
def heat_maps(run: Run) -> Iterator[Part]:
    """Edited retention and the gap by editor and one other factor, means over arms."""
    found = cells(run.measured)
    if found is None:
        return
    factor = str(found.columns[1])
    yield Heading(f"Editor by {factor}", "heat")
    yield Words(f"Each cell is the mean over the arms that share that editor and {factor}; the table says how many.")
    yield Group(
        [
            _picture(found, "edited facts kept", "retention_edited", "share", "heat-map-retention"),
            _picture(found, "gap, in points", "gap", "difference", "heat-map-gap"),
        ]
    )
    table = found.astype({"arms": str}).assign(
        **{"edited kept": found["retention_edited"].map(percent), "gap, points": found["gap"].map(points)}
    )
    caption = f"Edited retention and gap by editor and {factor}, means over arms."
    yield numbers(table.drop(columns=["retention_edited", "gap"]), caption, "heat-map")
    yield Data("heat-map", found)


def cells(measured: Sequence[Summary]) -> pd.DataFrame | None:
    """Means over the arms (lines of a summary that have a gap) of each editor and value of the first factor of
    `COLUMN_FACTORS` that differs, both in order of appearance: arms (how many), retention_edited, gap. None without two
    editors or two values of the factor."""
    arms = pd.DataFrame(measured)
    factor = next((name for name in COLUMN_FACTORS if len(arms) and arms[name].nunique() > 1), None)
    if factor is None or arms["editor"].nunique() < 2:
        return None
    for name in ("editor", factor):
        names = arms[name].astype(str)
        arms[name] = pd.Categorical(names, names.unique())  # in this order, not by name
    cells = arms.groupby(["editor", factor], observed=True)
    found = cells.agg(arms=("arm", "size"), retention_edited=("retention_edited", _mean), gap=("gap", _mean))
    return found.reset_index()


def _mean(values: pd.Series) -> float:
    return float(sum(values)) / len(values)


def _picture(found: pd.DataFrame, title: str, value: str, kind: Literal["share", "difference"], file: str) -> Picture:
    editor, factor = found.columns[:2]
    draw = partial(heat_map, found.pivot(index=editor, columns=factor, values=value), kind)
    return Picture(draw, f"{title}, by editor and {factor}; the table has the values.", title, file)
