"""The figures of every arm in one table: what it kept, what it achieved, what the edit cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from math import nan
from statistics import fmean

import pandas as pd

from indelible.numbers.measures import CONTROL_EDITOR, MEASURES, Combination, Measure, Rate, measures
from indelible.numbers.words import MISSING, cell, change, duration, heading
from indelible.report.exhibit import Data, Fold, Grid, Heading, Part, Words, exhibit, numbers, texts
from indelible.report.exhibits.answer import short
from indelible.report.run import Run

MOST_OPEN = 12
"""Arms in a table that stands open."""
OTHER_WORDINGS = "retention_paraphrase"
"""Beside the measures of the headline: what was kept in wordings that no edit had seen."""


@exhibit("results", place=10)
def results(run: Run) -> Iterator[Part]:
    """What every arm achieved and kept, what tuning left before what came before it."""
    yield Heading("Results", "results")
    table, same = _results(run)
    summary = pd.DataFrame(run.summary)
    grid = Grid(table, "What each arm achieved and kept.", "headline", data=summary)
    if len(run.summary) > MOST_OPEN:
        yield Fold("All arms", [grid], look="printed")
    else:
        yield grid
    early = [heading(one) for one in measures("headline") if before_tuning(one)]
    said = f"Alike in all arms with an edit: {', '.join(same)}. " if same else ""
    said += f"{', '.join(early[:-1])} and {early[-1]} are measured before tuning.".capitalize()
    yield Words(f"{said} A dash stands where a figure does not apply or was not reached.", "note")
    figures = downstream_figures(run.runs)
    if figures.groupby("arm").size().gt(1).any():
        cells = figures[["arm", "figure"]].assign(
            **{"before and after tuning": texts(partial(change, None), figures, "before", "after")}
        )
        yield numbers(cells, "What every downstream figure came to.", "downstream", "All downstream figures", figures)
    yield Data("summary", summary)


def _results(run: Run) -> tuple[pd.DataFrame, list[str]]:
    """A line for each arm, what tuning had a part in first; in words, what all arms with an edit had alike before."""
    shown = sorted((*measures("headline"), MEASURES.get(OTHER_WORDINGS)), key=before_tuning)
    shown.sort(key=lambda one: (before_tuning(one), one.unit == "nats"))  # the widest of them last
    columns = {heading(one): [cell(line, one) for line in run.summary] for one in shown}
    edits = [line["editor"] != CONTROL_EDITOR for line in run.summary]
    same = []
    for one in map(heading, filter(before_tuning, shown)):
        found = {text for text, edit in zip(columns[one], edits, strict=True) if edit} or set(columns[one])
        if found == {MISSING} or (len(found) == 1 and sum(edits) > 1):
            del columns[one]
            same += [f"{one} {text}" for text in found if text != MISSING]
    figures = ("figure", "downstream_before", "downstream_after")
    columns["downstream"] = [change(*(line[name] for name in figures)) for line in run.summary]
    columns["time"] = [duration(line["seconds"]) for line in run.summary]
    names = short([str(line["arm"]) for line in run.summary])
    return pd.DataFrame({"arm": names} | columns), same


def downstream_figures(runs: pd.DataFrame) -> pd.DataFrame:
    """All downstream figures that a run table holds, those of a harness among them: arm, figure, before, after; means
    over the seeds that have them."""
    lines = []
    for arm, told in runs.groupby("arm", sort=False)["downstream"]:
        phases = [json.loads(text) for text in told.dropna()]
        for name in dict.fromkeys(name for one in phases for name in one["after"]):
            of_seeds = [(one["before"].get(name, nan), one["after"][name]) for one in phases if name in one["after"]]
            before, after = (fmean(values) for values in zip(*of_seeds, strict=True))
            lines.append({"arm": arm, "figure": name, "before": before, "after": after})
    return pd.DataFrame(lines, columns=["arm", "figure", "before", "after"])


def before_tuning(measure: Measure) -> bool:
    """Whether tuning has no part in a measure."""
    if isinstance(measure, Combination):
        return all(before_tuning(MEASURES.get(name)) for name in measure.weights)
    return isinstance(measure, Rate) and measure.hit != "tuned"
