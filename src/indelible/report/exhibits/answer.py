"""The answer first: what was done, one sentence, a picture of what was answered in each phase, and what a reader should
hold against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pandas as pd

from indelible.numbers.answers import counts
from indelible.numbers.arms import pairs_with_control
from indelible.numbers.measures import CONTROL_EDITOR, PHASES, Phase, rate_named
from indelible.numbers.words import MISSING, counted, percent, percent_with_interval
from indelible.report.drawing.phases import TITLES, phases
from indelible.report.exhibit import Data, Fold, Grid, Html, Part, Picture, Words, exhibit, texts
from indelible.report.exhibits.curves import first_arms
from indelible.report.masthead import masthead
from indelible.report.run import Run

MOST_PANELS = 12
SERIES = {"edited": "edit_success", "paraphrase": "paraphrase_success", "intrinsic": "retention_intrinsic_base"}
"""Series of the picture -> the rate that it is of, in each phase."""
CAUTIONS = """
<details class="printed cautions">
<summary>Read with care <span class="note">{{ number }}</span></summary>
<ul>
{% for caution in cautions %}
  <li>{{ caution }}</li>
{% endfor %}
</ul>
</details>
"""


@exhibit("answer", place=0)
def answer(run: Run) -> Iterator[Part]:
    """What the run was, the verdict in words, and what was answered in each phase."""
    said = run.verdict
    yield masthead(run)
    if run.unfinished:
        yield Words(run.unfinished, "banner")
    yield Words(f"{said.answer} {damage(run)}".strip(), "answer")
    if said.detail:
        yield Words(said.detail)
    points = answered(run)
    panels = first_arms(run.summary, list(dict.fromkeys(points["arm"])), MOST_PANELS)
    if panels:
        chosen, names = points[points["arm"].isin(panels)], short(panels)
        draw = partial(phases, chosen, panels, names)
        description = f"Share of facts answered in base, after the edit and after tuning, by arm. {said.answer}"
        yield Picture(draw, description, file="phases", narrow=partial(draw, narrow=True), data=points)
        grid = Grid(_table(points), "Share of facts answered in each phase.", "phases", data=points)
        yield Fold("The numbers", [grid])
        yield Data("phases", points)
        if left := points["arm"].nunique() - len(panels):
            yield Words(f"The picture shows {len(panels)} arms; the table has the other {left} too.", "note")
    if said.cautions:
        yield Html(CAUTIONS, {"cautions": said.cautions, "number": counted(len(said.cautions), "caution")})


def damage(run: Run) -> str:
    """In a sentence what each editor cost before any tuning, from arm to arm where these differ; "" where that is not
    known."""
    said = []
    for editor in run.editors:
        found = [line["damage"] for line in run.summary if line["editor"] == editor and line["damage"] is not None]
        if found:
            ends = dict.fromkeys((percent(min(found)), percent(max(found))))
            said.append(f"{' to '.join(ends)} ({editor})")
    cost = f"The edits themselves cost {', '.join(said)} of the intrinsic facts that base answers, before any tuning."
    return cost if said else ""


def answered(run: Run) -> pd.DataFrame:
    """What each arm answered: arm, series (a key of `SERIES`, or "control", the intrinsic facts of the arm's control),
    phase, value, low, high (fractions). Edits and held-out wordings are of all that were asked, intrinsic facts of
    those that base answers."""
    lines: list[tuple[object, ...]] = []
    editors = {str(line["arm"]): line["editor"] for line in run.summary}
    control_of = dict(pairs_with_control(run.runs))
    edits = [arm for arm in run.arms if editors.get(arm) != CONTROL_EDITOR] or run.arms
    for arm in edits:
        sources = [(series, arm, series) for series in SERIES]
        if arm in control_of:
            sources.append(("control", control_of[arm], "intrinsic"))
        for series, source, of_kind in sources:
            for phase in PHASES:
                value, low, high = _in_phase(run, source, SERIES[of_kind], phase)
                if value is not None:
                    lines.append((arm, series, phase, value, low, high))
    columns = ["arm", "series", "phase", "value", "low", "high"]
    return pd.DataFrame(lines, columns=columns).astype(dict.fromkeys(columns[3:], "float64"))


def _in_phase(run: Run, arm: str, name: str, phase: Phase) -> tuple[float | None, float | None, float | None]:
    """A rate in one phase, among what it is among; there itself it is whole by definition, and has no interval."""
    rate = replace(rate_named(name), hit=phase)
    rows = run.answers.arm(arm)
    if rows.empty or not rate.applies(bool((rows["editor"] == CONTROL_EDITOR).all())):
        return None, None, None
    outcome = run.answers.outcomes(arm, rate.criterion)
    found = run.answers.replicates.estimate_of((arm, rate.name), counts(outcome, rate))
    return (found.value, None, None) if phase == rate.among else (found.value, found.low, found.high)


def short(arms: Sequence[str]) -> list[str]:
    """Names of arms without what all begin with, word by word between commas: the masthead says that."""
    words = [arm.split(", ") for arm in arms]
    least = min(map(len, words), default=1) - 1 if len(arms) > 1 else 0
    alike = next((place for place in range(least) if len({own[place] for own in words}) > 1), least)
    return [", ".join(own[alike:]) for own in words]


def _table(points: pd.DataFrame) -> pd.DataFrame:
    """One line for each arm and series, a column for each phase."""
    text = texts(percent_with_interval, points, "value", "low", "high")
    arms = pd.Categorical(points["arm"], categories=points["arm"].unique())
    series = pd.Categorical(points["series"].map(TITLES), categories=list(TITLES.values()))
    wide = points.assign(text=text, arm=arms, series=series).pivot(
        index=["arm", "series"], columns="phase", values="text"
    )
    wide = wide.reindex(columns=list(PHASES)).fillna(MISSING).reset_index().astype(str)
    return wide.rename(columns={"series": "share of"})
