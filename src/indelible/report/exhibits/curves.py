"""Retention over training steps, arm by arm, each beside the control that was tuned like it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import pandas as pd

from indelible.numbers.arms import pairs_with_control
from indelible.numbers.curves import retention_curves
from indelible.numbers.measures import CONTROL_EDITOR, rates
from indelible.numbers.words import MISSING, percent, percent_with_interval
from indelible.report.drawing.retention_curves import curve_panel, curve_sheet
from indelible.report.drawing.style import in_order, label_of
from indelible.report.exhibit import Data, Fold, Grid, Group, Heading, Html, Part, Picture, Words, exhibit, texts
from indelible.report.run import Run, Summary

MOST_OPEN = 9
"""Panels that stand open on the page; the rest can be unfolded."""
MOST_ON_SHEET = 12
"""Panels on the sheet for papers; curves.csv has the curves of all arms."""
KEY = """
<ul class="key" aria-label="Key to the curves">
{% for name, label in series.items() %}
  <li><span class="{{ name }}"></span>{{ label }}</li>
{% endfor %}
</ul>
"""


@exhibit("curves", place=20)
def curves(run: Run) -> Iterator[Part]:
    """A panel for every arm that was asked while it was tuned."""
    found = curves_of(run)
    series = in_order(found["series"])
    arms = list(dict.fromkeys(found["arm"]))
    last_step = int(found["step"].max()) if arms else 1
    yield Heading("Retention while tuning", "curves")
    said = "The share of facts that succeeded before tuning and still do, by training step."
    for rate in rates("curves"):
        if rate.among != "before":
            said += f" {rate.label}: of {'all' if rate.among is None else f'those that succeeded in {rate.among}'}."
    yield Words(f"{said} Bands are pointwise 95% intervals.")
    yield Html(KEY, {"series": {name: label_of(name) for name in series}})
    first = first_arms(run.summary, arms, MOST_OPEN)
    panels = {arm: _panel(arm, found[found["arm"] == arm], last_step) for arm in arms}
    yield Group([panels[arm] for arm in arms if arm in first])
    editors = {str(line["arm"]): str(line["editor"]) for line in run.summary}
    rest = [arm for arm in arms if arm not in first]
    for editor in dict.fromkeys(editors[arm] for arm in rest):
        folded = [panels[arm] for arm in rest if editors[arm] == editor]
        title = "Without any edit" if editor == CONTROL_EDITOR else editor
        yield Fold(title, [Group(folded)], note=f"{len(folded)} more")
    if without := [arm for arm in run.arms if arm not in panels]:
        yield Words(f"Without a curve, since nothing was measured after tuning: {'; '.join(without)}.", "note")
    yield Fold("The numbers", [Grid(_table(found, series), "Retention over training steps.", "curves")])
    if arms:
        chosen = first_arms(run.summary, arms, MOST_ON_SHEET)
        draw = partial(curve_sheet, found, chosen, last_step=last_step)
        yield Group([Picture(draw, "Retention over training steps.", file="curves")], "files")
    yield Data("curves", found)


def curves_of(run: Run) -> pd.DataFrame:
    """Every point of every curve: arm, series, step, retention, low, high; the series "control" is the intrinsic curve
    of the arm's control."""
    columns = ["series", "step", "retention", "low", "high"]
    own = {}
    for arm in run.arms:
        curves = retention_curves(run.answers, arm).items()
        points = [(name, step, one.value, one.low, one.high) for name, curve in curves for step, one in curve.items()]
        own[arm] = pd.DataFrame(points, columns=columns)
    frames = []
    control_of = dict(pairs_with_control(run.runs))
    for arm, frame in own.items():
        frames.append(frame.assign(arm=arm))
        if arm in control_of and len(frame):
            beside = own[control_of[arm]]
            frames.append(beside[beside["series"] == "intrinsic"].assign(series="control", arm=arm))
    found = pd.concat(frames, ignore_index=True)[["arm", *columns]]
    return found.astype({"step": "int64", "retention": "float64", "low": "float64", "high": "float64"})


def first_arms(summary: Sequence[Summary], arms: Sequence[str], most: int) -> list[str]:
    """Arms that stand for the study: all of them or, of more than ``most``, the first of each editor and objective,
    every editor before any second one."""
    if len(arms) <= most:
        return list(arms)
    edits = [line for line in summary if line["arm"] in arms and line["editor"] != CONTROL_EDITOR]
    firsts = pd.DataFrame(edits, columns=["arm", "editor", "objective"]).drop_duplicates(["editor", "objective"])
    turns = firsts.groupby("editor").cumcount().sort_values(kind="stable")
    chosen = set(firsts["arm"][turns.index[:most]])
    return [arm for arm in arms if arm in chosen]


def _panel(arm: str, points: pd.DataFrame, last_step: int) -> Picture:
    ends = points.drop_duplicates("series", keep="last")
    said = "; ".join(
        f"{label_of(series)} {percent(retention)} at step {step}"
        for series, step, retention in zip(ends["series"], ends["step"], ends["retention"], strict=True)
    )
    draw = partial(curve_panel, points, last_step=last_step)
    return Picture(draw, f"Retention over training steps in {arm}: {said}.", arm)


def _table(found: pd.DataFrame, series: Sequence[str]) -> pd.DataFrame:
    """Every point of every curve: one row per arm and step, one column per series."""
    text = texts(percent_with_interval, found, "retention", "low", "high")
    arms = pd.Categorical(found["arm"], categories=found["arm"].unique())  # in this order, not by name
    wide = found.assign(text=text, arm=arms).pivot(index=["arm", "step"], columns="series", values="text")
    return wide.reindex(columns=list(series)).fillna(MISSING).rename(columns=label_of).reset_index().astype(str)
