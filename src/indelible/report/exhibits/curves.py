"""Retention over training, arm by arm, each beside the control that was tuned like it.

Points are steps or, where an arm was tuned by dose, tokens seen; such an arm has a second panel, in which the same
points stand over what the training was good for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean

import pandas as pd

from indelible.numbers.arms import pairs_with_control
from indelible.numbers.curves import retention_curves
from indelible.numbers.measures import CONTROL_EDITOR, rates
from indelible.numbers.words import MISSING, percent, percent_with_interval
from indelible.report.drawing.retention_curves import Axis, curve_panel, curve_sheet
from indelible.report.drawing.style import in_order, label_of
from indelible.report.exhibit import Data, Fold, Grid, Group, Heading, Html, Part, Picture, Words, exhibit, texts
from indelible.report.run import Run, Summary

MOST_OPEN = 9
"""Panels that stand open on the page; the rest can be unfolded."""
MOST_ON_SHEET = 12
"""Panels on the sheet for papers; curves.csv has the curves of all arms."""
STEPS = Axis("step", "training steps")
TOKENS = Axis("dose", "tokens seen in training", by_ratio=True)
KEY = """
<ul class="key" aria-label="Key to the curves">
{% for name, label in series.items() %}
  <li><span class="{{ name }}"></span>{{ label }}</li>
{% endfor %}
</ul>
"""


@exhibit("curves", place=30)
def curves(run: Run) -> Iterator[Part]:
    """A panel for every arm that was asked while it was tuned, and a second where its points are doses; a control that
    stands in the panels of others has none."""
    found = curves_of(run)
    yield Data("curves", found)
    if found.groupby(["arm", "series"]).size().max() <= len(("start", "end")):
        return  # the picture of the phases says as much
    series = in_order(found["series"])
    beside = set(dict(pairs_with_control(run.runs)).values())
    arms = [arm for arm in dict.fromkeys(found["arm"]) if arm not in beside]
    axes = _axes(run, found)
    yield Heading("Retention while tuning", "curves")
    along = " and ".join(dict.fromkeys(axis.name for own in axes.values() for axis in own[:1])) or STEPS.name
    said = f"The share of facts that succeeded before tuning and still do, by {along}."
    for rate in rates("curves"):
        if rate.among != "before":
            said += f" {rate.label}: of {'all' if rate.among is None else f'those that succeeded in {rate.among}'}."
    if any(len(own) > 1 for own in axes.values()):
        said += " Beside it the same points by the held-out figure that the training came to, averaged over seeds."
    yield Words(f"{said} Bands are pointwise 95% intervals.")
    yield Html(KEY, {"series": {name: label_of(name) for name in series}})
    panels = {arm: [_panel(arm, found[found["arm"] == arm], axis) for axis in axes[arm]] for arm in arms}
    most = MOST_OPEN // max(map(len, panels.values()), default=1)
    first = first_arms(run.summary, arms, most)
    yield Group([panel for arm in arms if arm in first for panel in panels[arm]])
    editors = {str(line["arm"]): str(line["editor"]) for line in run.summary}
    rest = [arm for arm in arms if arm not in first]
    for editor in dict.fromkeys(editors[arm] for arm in rest):
        folded = [panel for arm in rest if editors[arm] == editor for panel in panels[arm]]
        title = "Without any edit" if editor == CONTROL_EDITOR else editor
        yield Fold(title, [Group(folded)], note=f"{len(folded)} more")
    if without := [arm for arm in run.arms if arm not in set(found["arm"])]:
        yield Words(f"Without a curve, since nothing was measured after tuning: {'; '.join(without)}.", "note")
    yield Fold("The numbers", [Grid(_table(found, series), "Retention while tuning.", "curves", data=found)])
    if arms:
        chosen = first_arms(run.summary, arms, MOST_ON_SHEET)
        sheets = [{arm: axes[arm][place] for arm in chosen if place < len(axes[arm])} for place in (0, 1)]
        names = ("curves", "curves-by-figure")
        yield Group(
            [
                Picture(partial(curve_sheet, found, sheet), "Retention while tuning.", file=name)
                for name, sheet in zip(names, sheets, strict=True)
                if sheet
            ],
            "files",
        )


def curves_of(run: Run) -> pd.DataFrame:
    """Every point of every curve: arm, series, step or dose (tokens seen, where the arm was tuned so), the held-out
    figure at the dose, retention, low, high; the series "control" is the intrinsic curve of the arm's control."""
    columns = ["series", "at", "retention", "low", "high"]
    own = {}
    for arm in run.arms:
        doses, figures = _doses(run, arm)
        curves = retention_curves(run.answers, arm, doses).items()
        points = [(name, at, one.value, one.low, one.high) for name, curve in curves for at, one in curve.items()]
        frame = pd.DataFrame(points, columns=columns)
        frame["figure"] = frame["at"].map(figures) if doses else None
        frame["step" if not doses else "dose"] = frame.pop("at")
        own[arm] = frame
    frames = []
    control_of = dict(pairs_with_control(run.runs))
    for arm, frame in own.items():
        frames.append(frame.assign(arm=arm))
        if arm in control_of and len(frame):
            beside = own[control_of[arm]]
            frames.append(beside[beside["series"] == "intrinsic"].assign(series="control", arm=arm))
    order = ["arm", "series", "step", "dose", "figure", "retention", "low", "high"]
    found = pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True).reindex(columns=order)
    kinds = {"step": "Int64", "dose": "Int64"} | dict.fromkeys(order[4:], "float64")
    return found.astype(kinds)


def _doses(run: Run, arm: str) -> tuple[list[int], Mapping[int, float]]:
    """The doses that an arm was tuned by, and the held-out figure at each, 0 among them: the mean over seeds."""
    own = run.runs[run.runs["arm"] == arm]
    if not {"tuning", "doses"} <= set(own) or (own := own.dropna(subset=["tuning", "doses"])).empty:
        return [], {}
    doses = [int(dose) for dose in json.loads(own["tuning"].iloc[0]).get("dose", ())]
    found: dict[int, list[float]] = {0: own["downstream_before"].tolist()}
    for line in own["doses"]:
        for dose, figure in json.loads(line).items():
            found.setdefault(int(dose), []).append(figure)
    return doses, {dose: fmean(figures) for dose, figures in found.items()}


def _axes(run: Run, found: pd.DataFrame) -> dict[str, list[Axis]]:
    """What each arm's points are drawn over: steps, or tokens and then the held-out figure. Axes of one kind end at the
    same value in all panels."""
    axes: dict[str, list[Axis]] = {}
    for arm, points in found.groupby("arm", sort=False):
        if points["dose"].isna().all():
            axes[str(arm)] = [STEPS.until(found["step"].max())]
            continue
        line = run.runs[run.runs["arm"] == arm].iloc[0]
        name = str(line["figure"]).replace("_", " ")
        by_figure = Axis("figure", f"held-out {name} ({line['better']} is better)", falling=line["better"] == "lower")
        axes[str(arm)] = [TOKENS.until(found["dose"].max()), by_figure]
    return axes


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


def _panel(arm: str, points: pd.DataFrame, axis: Axis) -> Picture:
    ends = points.drop_duplicates("series", keep="last")
    said = "; ".join(
        f"{label_of(series)} {percent(retention)} at {at:,.6g}"
        for series, at, retention in zip(
            ends["series"], ends[axis.column].astype("float64"), ends["retention"], strict=True
        )
    )
    title = f"{arm}, by held-out figure" if axis.column == "figure" else arm
    return Picture(partial(curve_panel, points, axis), f"Retention over {axis.name} in {arm}: {said}.", title)


def _table(found: pd.DataFrame, series: Sequence[str]) -> pd.DataFrame:
    """Every point of every curve: one row per arm and step or dose, one column per series."""
    text = texts(percent_with_interval, found, "retention", "low", "high")
    arms = pd.Categorical(found["arm"], categories=found["arm"].unique())  # in this order, not by name
    by = [name for name in ("step", "dose") if found[name].notna().any()] or ["step"]
    keyed = found.assign(text=text, arm=arms, **{name: found[name].fillna(-1) for name in by})
    wide = keyed.pivot(index=["arm", *by], columns="series", values="text")
    wide = wide.reindex(columns=list(series)).fillna(MISSING).rename(columns=label_of).reset_index().astype(str)
    return wide.replace({name: "-1" for name in by}, MISSING)
