"""What makes a difference: every effect of the study as a file and, over a grid, mean contrasts of its factors."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import MEASURES
from indelible.numbers.summary import contrasts_table, effects_table
from indelible.numbers.words import MISSING, UNITS, in_unit
from indelible.report.exhibit import Data, Heading, Part, Words, exhibit, numbers
from indelible.report.run import Run


@exhibit("effects", place=70)
def effects(run: Run) -> Iterator[Part]:
    """The table of all effects, and the mean contrasts of factors that were varied in several pairs of arms."""
    yield Data("effects", effects_table(run.answers, run.runs))
    found = contrasts_table(run.answers, run.runs)
    if found.empty:
        return
    yield Heading("What matters over the whole grid", "grid")
    yield Words(
        "What each factor changed, on average over the pairs of arms that differ in it alone: a level less the one "
        "that it is held against."
    )
    yield numbers(_table(found), "What matters over the whole grid.", "grid")
    yield Data("grid", found)


def _table(found: pd.DataFrame) -> pd.DataFrame:
    """One line per factor and two of its levels, one column per measure."""
    keys = ["factor", "level", "against", "pairs"]
    units = {name: MEASURES.get(name).unit for name in found["measure"].unique()}
    names = {name: f"{MEASURES.get(name).label}, {UNITS[unit]} [95%]" for name, unit in units.items()}
    lines = found[["measure", "value", "low", "high"]].itertuples(index=False)
    text = [in_unit(Estimate(*figures), units[name]) for name, *figures in lines]
    wide = found.assign(text=text).pivot(index=keys, columns="measure", values="text")[list(names)]
    return found[keys].drop_duplicates().join(wide.rename(columns=names), on=keys).fillna(MISSING).astype(str)
