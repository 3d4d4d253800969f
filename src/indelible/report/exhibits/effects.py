"""What makes a difference: every effect of the study as a file and, over a grid, mean contrasts of its factors.

And what was said to further kinds of questions, whose rates are among the effects.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import FURTHER, MEASURES, PHASES
from indelible.numbers.summary import contrasts_table, effects_table, further_table
from indelible.numbers.words import MISSING, UNITS, in_unit, percent, percent_with_interval
from indelible.report.exhibit import Data, Grid, Heading, Part, Words, exhibit, numbers, texts
from indelible.report.run import Run


@exhibit("effects", place=70)
def effects(run: Run) -> Iterator[Part]:
    """The table of all effects, further kinds of questions, and the mean contrasts of factors that were varied in
    several pairs of arms."""
    yield from _further(run)
    yield Data("effects", effects_table(run.answers, run.runs))
    found = contrasts_table(run.answers, run.runs)
    if found.empty:
        return
    yield Heading("What matters over the whole grid", "grid")
    yield Words(
        "What each factor changed, on average over the pairs of arms of one editor that differ in it alone: a level "
        "less the one that it is held against."
    )
    yield numbers(_table(found), "What matters over the whole grid.", "grid", data=found)
    yield Data("grid", found)


def _further(run: Run) -> Iterator[Part]:
    """By kind of question, what counts in each phase, and how probable it is; where a study asked any."""
    found = further_table(run.answers, run.runs)
    if found.empty:
        return
    yield Heading("Asked otherwise", "further")
    yield Words(
        "Of each further kind of question, the share of answers that count, and in brackets the mean probability of "
        "what was asked for: the object that is to be said; under negation, the object that is not; of old objects, "
        "the one that was replaced, or of intrinsic facts one that never was true. Guessing tells half of the facts "
        "from their rivals, and who knows nothing of a fact gets its negation right: read edits beside intrinsic facts."
    )
    shown = (
        found[["arm", "kind", "fact_set", "questions"]]
        .astype(str)
        .assign(kind=[FURTHER.get(kind, kind) for kind in found["kind"]])
    )
    for phase in PHASES:
        shares = texts(percent_with_interval, found, phase, f"{phase}_low", f"{phase}_high")
        likely = texts(percent, found, f"{phase}_probability")
        shown[phase] = [one if one == MISSING else f"{one} ({p})" for one, p in zip(shares, likely, strict=True)]
    yield Grid(
        shown.rename(columns={"fact_set": "set"}),
        "Answers that count, by kind of question and phase.",
        "further",
        data=found,
    )
    yield Data("further", found)


def _table(found: pd.DataFrame) -> pd.DataFrame:
    """One line per editor, factor and two of its levels, one column per measure."""
    keys = ["editor", "factor", "level", "against", "pairs"]
    units = {name: MEASURES.get(name).unit for name in found["measure"].unique()}
    names = {name: f"{MEASURES.get(name).label}, {UNITS[unit]} [95%]" for name, unit in units.items()}
    lines = found[["measure", "value", "low", "high"]].itertuples(index=False)
    text = [in_unit(Estimate(*figures), units[name]) for name, *figures in lines]
    found = found.assign(editor=found["editor"].replace("", MISSING))
    wide = found.assign(text=text).pivot(index=keys, columns="measure", values="text")[list(names)]
    return found[keys].drop_duplicates().join(wide.rename(columns=names), on=keys).fillna(MISSING).astype(str)
