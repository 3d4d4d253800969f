"""Two runs side by side: what changed between them, arm by arm, with intervals that pair the facts that both asked.

Arms belong together when they have one name, or else one editor, objective, tuner, mask and number of paraphrases. The
answers of both runs are drawn in one bootstrap: a fact has the same weight in both, so that an interval speaks of the
change and not of which facts were taken; where the runs asked different facts, the draws are independent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from indelible.numbers.answers import Answers
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import FACTORS, Measure, measures
from indelible.numbers.replicates import Replicates
from indelible.numbers.words import MISSING, Table, in_percent, in_points, points
from indelible.report.drawing.dot_plot import Block, Dot, change, dot_plot
from indelible.report.drawing.style import inline_svg
from indelible.report.figure_tables import p_value
from indelible.report.page import render
from indelible.report.settings_lines import flat
from indelible.report.transcript import TranscriptLine, transcript

MOST_FLIPS = 100
DRAWS = 10_000


@dataclass(frozen=True)
class Run:
    """One run as it is compared.

    Attributes:
        name: what it is called on the page.
        rows: its tidy rows.
        runs: its run table.
        settings: of the study.
        provenance: of the run.
    """

    name: str
    rows: pd.DataFrame
    runs: pd.DataFrame
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One rate in both runs, and the second less the first."""

    measure: Measure
    first: Estimate
    second: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Flip:
    """A fact that one run kept and the other lost."""

    before: TranscriptLine
    after: TranscriptLine


@dataclass(frozen=True)
class ArmChange:
    """One arm in both runs.

    Attributes:
        first: its name in the first run.
        second: its name in the second.
        changes: of the rates and the gap.
        shared: pairs of seed and fact that both asked.
        lost: kept in the first run, lost in the second; by most of the models, where an arm is isolated.
        regained: lost in the first, kept in the second.
    """

    first: str
    second: str
    changes: tuple[Change, ...]
    shared: int
    lost: tuple[Flip, ...]
    regained: tuple[Flip, ...]

    @property
    def title(self) -> str:
        """The arm's name, or both where they differ."""
        return self.first if self.first == self.second else f"{self.first} / {self.second}"

    def of(self, measure: str) -> Change | None:
        """One of its changes, or None where neither run has the rate."""
        return next((found for found in self.changes if found.measure.name == measure), None)


@dataclass(frozen=True)
class Comparison:
    """What changed from the first run to the second.

    Attributes:
        arms: those that both have.
        mean: change of edited retention, the mean over the arms that have it in both; None without any.
        averaged: how many arms that is.
        only_first: arms of the first run alone.
        only_second: of the second.
        shared_seeds: seeds that both runs have.
    """

    arms: tuple[ArmChange, ...]
    mean: Estimate | None
    averaged: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    shared_seeds: int


def paired_arms(first: pd.DataFrame, second: pd.DataFrame) -> list[tuple[str, str]]:
    """Arms that belong together, by name or else by what they are where only one arm of each run is that.

    Args:
        first: run table of the first run.
        second: of the second.
    """
    of_first, of_second = (table.drop_duplicates("arm").set_index("arm")[list(FACTORS)] for table in (first, second))
    pairs = {str(arm): str(arm) for arm in of_first.index if arm in of_second.index}
    rest_of_first, rest_of_second = _by_settings(of_first, set(pairs)), _by_settings(of_second, set(pairs))
    pairs |= {arm: rest_of_second[about] for about, arm in rest_of_first.items() if about in rest_of_second}
    return [(str(arm), pairs[str(arm)]) for arm in of_first.index if str(arm) in pairs]


def _by_settings(arms: pd.DataFrame, taken: Collection[str]) -> dict[tuple[Any, ...], str]:
    """What an arm is -> its name, of those not taken that are the only one of their kind."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for arm, *about in arms.itertuples(name=None):
        if str(arm) not in taken:
            found.setdefault(tuple(about), []).append(str(arm))
    return {about: names[0] for about, names in found.items() if len(names) == 1}


def compare_runs(first: Run, second: Run, *, draws: int = DRAWS, seed: int = 0) -> Comparison:
    """What changed from the first run to the second.

    Args:
        first: what is subtracted.
        second: what it is subtracted from.
        draws: bootstrap draws.
        seed: of the bootstrap.
    """
    pairs = paired_arms(first.runs, second.runs)
    both = [_named(first, 0), _named(second, 1)]
    found = Answers(pd.concat(both, ignore_index=True), draws=draws, seed=seed).replicates
    rows = [{str(arm): part for arm, part in run.rows.groupby("arm", sort=False)} for run in (first, second)]
    arms = []
    for pair in pairs:
        lines = [_by_fact(of_run[arm]) if arm in of_run else {} for of_run, arm in zip(rows, pair, strict=True)]
        shared = [key for key in lines[0] if key in lines[1]]
        flips = [(lines[0][key], lines[1][key]) for key in shared]
        arms.append(
            ArmChange(
                first=pair[0],
                second=pair[1],
                changes=tuple(_changes(found, *(_name(arm, side) for side, arm in enumerate(pair)))),
                shared=len(shared),
                lost=_flipped(flips, "kept", "lost"),
                regained=_flipped(flips, "lost", "kept"),
            )
        )
    measured = [
        pair
        for pair in pairs
        if all(found.value((_name(arm, side), "retention_edited")) is not None for side, arm in enumerate(pair))
    ]
    mean = None
    if measured:
        signs = ((1, 1.0), (0, -1.0))
        mean = found.estimate(
            {
                (_name(pair[side], side), "retention_edited"): sign / len(measured)
                for pair in measured
                for side, sign in signs
            }
        )
    taken = [{pair[side] for pair in pairs} for side in (0, 1)]
    only_first, only_second = (
        tuple(arm for arm in Answers(run.rows).arms(run.runs) if arm not in taken[side])
        for side, run in enumerate((first, second))
    )
    seeds = set(first.rows["seed"]) & set(second.rows["seed"])
    return Comparison(tuple(arms), mean, len(measured), only_first, only_second, len(seeds))


def answer(comparison: Comparison, first: str, second: str) -> str:
    """What changed, in one sentence.

    Args:
        comparison: of the runs.
        first: name of the first run.
        second: name of the second.
    """
    mean = comparison.mean
    if comparison.arms and not comparison.shared_seeds:
        return f"{first} and {second} share no seed, so that nothing can be compared."
    if not comparison.arms:
        return f"{first} and {second} have no arm in common."
    if mean is None or mean.value is None:
        return f"In no arm did both {first} and {second} measure how many edits were kept."
    start = f"From {first} to {second}, edited retention changed by {in_points(mean)} points"
    start += "" if comparison.averaged == 1 else f" on average over {comparison.averaged} arms"
    if mean.interval is None:
        return f"{start}, on too few facts to give an interval."
    if mean.side:
        return f"{start}: {'more' if mean.side > 0 else 'fewer'} edits were kept."
    return f"{start}, which shows neither a change nor its absence."


def render_comparison(first: Run, second: Run, *, seed: int = 0) -> str:
    """The page that compares two runs; the same runs give the same bytes."""
    comparison = compare_runs(first, second, seed=seed)
    said = answer(comparison, first.name, second.name)
    return render(
        "comparison.html.j2",
        {
            "first": first.name,
            "second": second.name,
            "answer": said,
            "comparison": comparison,
            "figure": _figure(comparison, said),
            "changes": _table(comparison, first.name, second.name),
            "most_flips": MOST_FLIPS,
            "settings": _different(first.settings, second.settings),
            "provenance": _different(first.provenance, second.provenance),
        },
    )


def _name(arm: str, side: int) -> str:
    return f"{side} {arm}"


def _named(run: Run, side: int) -> pd.DataFrame:
    """Rows with arms named apart from the other run's."""
    exams = run.rows[run.rows["phase"] != "tuning"]
    return exams.assign(arm=[_name(str(arm), side) for arm in exams["arm"]])


def _changes(found: Replicates, first: str, second: str) -> list[Change]:
    changes = []
    for measure in measures("changes"):
        sums = measure.of(first), measure.of(second)
        if all(found.value(key) is not None for weights in sums for key in weights):
            less = found.estimate(sums[1] | measure.of(first, -1.0))
            changes.append(Change(measure, found.of(first, measure), found.of(second, measure), less))
    return changes


def _by_fact(rows: pd.DataFrame) -> dict[tuple[int, str, str, str], TranscriptLine]:
    """One line per fact: of an isolated arm's models, that of the first whose outcome most of them share."""
    found: dict[tuple[int, str, str, str], list[TranscriptLine]] = {}
    for line in transcript(rows):
        found.setdefault((line.seed, line.fact_set, line.fact_id, line.target), []).append(line)
    return {fact: _usual(lines) for fact, lines in found.items()}


def _usual(lines: Sequence[TranscriptLine]) -> TranscriptLine:
    ((outcome, _),) = Counter(line.outcome for line in lines).most_common(1)
    return next(line for line in lines if line.outcome == outcome)


def _flipped(pairs: Sequence[tuple[TranscriptLine, TranscriptLine]], before: str, after: str) -> tuple[Flip, ...]:
    return tuple(Flip(*pair) for pair in pairs if (pair[0].outcome, pair[1].outcome) == (before, after))


def _figure(comparison: Comparison, description: str) -> Markup | None:
    dots = []
    for arm in comparison.arms:
        found = arm.of("retention_edited")
        if found is not None:
            difference = found.difference
            style, text = change(difference.interval), in_points(difference)
            dots.append(Dot(arm.title, style, difference.value, difference.interval, text))
    if not dots:
        return None
    blocks = [Block("", dots)]
    mean = comparison.mean
    if mean is not None and len(dots) > 1:
        blocks.append(Block("", [Dot("mean over arms", "mean", mean.value, mean.interval, in_points(mean))]))
    figure = dot_plot(blocks, label="change of edited retention, points", differences=True)
    return Markup(inline_svg(figure, "changes", description))


def _table(comparison: Comparison, first: str, second: str) -> Table:
    rows = []
    for arm in comparison.arms:
        for found in arm.changes:
            shown = [
                points(of_run.value) if found.measure.differences else in_percent(of_run)
                for of_run in (found.first, found.second)
            ]
            difference = found.difference
            rows.append(
                (
                    arm.title,
                    found.measure.label,
                    *shown,
                    in_points(difference),
                    MISSING if difference.p is None else p_value(difference.p),
                    str(difference.seeds),
                )
            )
    return Table(("arm", "measure", first, second, "change, points [95%]", "p", "shared seeds"), tuple(rows))


def _different(first: Mapping[str, Any], second: Mapping[str, Any]) -> Table:
    """Settings that differ, by their dotted names."""
    of_first, of_second = dict(flat(first)), dict(flat(second))
    names = [*of_first, *(name for name in of_second if name not in of_first)]
    rows = [
        (name, of_first.get(name, MISSING), of_second.get(name, MISSING))
        for name in names
        if of_first.get(name) != of_second.get(name)
    ]
    return Table(("name", "first", "second"), tuple(rows))
