"""Two runs side by side: what changed between them, arm by arm, with intervals that pair the facts that both asked.

Arms belong together when they have one name, or else one editor, objective, tuner, mask and number of paraphrases. The
answers of both runs are drawn in one bootstrap: a fact has the same weight in both, so that an interval speaks of the
change and not of which facts were taken; where the runs asked different facts, the draws are independent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from indelible.numbers.answers import Answers
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import FACTORS, MEASURES, Measure, measures
from indelible.numbers.replicates import Replicates
from indelible.numbers.words import MISSING, UNITS, counted, figure, in_points, in_unit, p_value
from indelible.report.drawing.dot_plot import Block, Dot, direction, dot_plot
from indelible.report.exhibit import Fold, Grid, Heading, Html, Part, Picture, Words
from indelible.report.masthead import masthead
from indelible.report.page import render
from indelible.report.run import Run, flat
from indelible.report.transcript import transcript

FACT = ["seed", "fact_set", "fact_id", "target"]
MOST_FLIPS = 100
CHANGES = {"more": "rise", "less": "fall", "unclear": "unclear"}
"""Direction of a difference -> style of a change of a rate."""
FLIPS = """
{% import "parts.html.j2" as parts %}
<h3>{{ title }}: {{ total }}</h3>
<div class="box" role="region" aria-label="{{ title }}, {{ arm }}" tabindex="0">
<table class="facts sortable">
<thead><tr><th scope="col">seed</th><th scope="col">set</th><th scope="col">asked</th><th scope="col">answer that counts</th><th scope="col">tuned says in {{ first }}</th><th scope="col">tuned says in {{ second }}</th></tr></thead>
<tbody>
{% for flip in flips %}
<tr><td>{{ flip.seed }}</td><td><span class="tag {{ flip.fact_set }}">{{ flip.fact_set }}</span></td><td class="asked">{{ flip.prompt }}</td><td>{{ flip.target }}</td>{{ parts.said(flip.tuned_says_first, flip.tuned_success_first) }}{{ parts.said(flip.tuned_says, flip.tuned_success) }}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% if flips | length < total %}
<p class="note">The first {{ flips | length }} of {{ total }}.</p>
{% endif %}
"""  # noqa: E501


@dataclass(frozen=True)
class Change:
    """One rate in both runs, and the second less the first."""

    measure: Measure
    first: Estimate
    second: Estimate
    difference: Estimate


@dataclass(frozen=True)
class ArmChange:
    """One arm under its names in both runs, with the changes of the measures that both have, and the facts that both
    asked: a transcript of the second run, with outcome_first, tuned_says_first and tuned_success_first."""

    first: str
    second: str
    changes: dict[str, Change]
    facts: pd.DataFrame

    @property
    def title(self) -> str:
        """The arm's name, or both where they differ."""
        return self.first if self.first == self.second else f"{self.first} / {self.second}"

    @property
    def lost(self) -> pd.DataFrame:
        """Facts kept in the first run and lost in the second."""
        return self.facts[(self.facts["outcome_first"] == "kept") & (self.facts["outcome"] == "lost")]

    @property
    def regained(self) -> pd.DataFrame:
        """Facts lost in the first run and kept in the second."""
        return self.facts[(self.facts["outcome_first"] == "lost") & (self.facts["outcome"] == "kept")]


@dataclass(frozen=True)
class Comparison:
    """What changed from the first run to the second: the arms that both have, arms of one run alone, and the number of
    seeds in both."""

    arms: tuple[ArmChange, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    shared_seeds: int


def paired_arms(first: pd.DataFrame, second: pd.DataFrame) -> list[tuple[str, str]]:
    """Arms of two run tables that belong together, by name or else by what only one arm of each is."""
    of_first, of_second = (table.drop_duplicates("arm").set_index("arm")[list(FACTORS)] for table in (first, second))
    pairs = {str(arm): str(arm) for arm in of_first.index if arm in of_second.index}
    rest_of_first, rest_of_second = _by_settings(of_first, pairs), _by_settings(of_second, pairs)
    pairs |= {arm: rest_of_second[about] for about, arm in rest_of_first.items() if about in rest_of_second}
    return [(str(arm), pairs[str(arm)]) for arm in of_first.index if str(arm) in pairs]


def _by_settings(arms: pd.DataFrame, taken: Collection[str]) -> dict[tuple[Any, ...], str]:
    """What an arm is -> its name, of those not taken that are the only one of their kind."""
    rest = arms[~arms.index.isin(list(taken))].drop_duplicates(keep=False)
    return {tuple(about): str(arm) for arm, *about in rest.itertuples(name=None)}


def compare_runs(first: Run, second: Run) -> Comparison:
    """What changed from the first run to the second, which also says how many draws are made, and with which seed."""
    pairs = paired_arms(first.runs, second.runs)
    sides = list(enumerate((first, second)))
    rows = pd.concat([_named(run.answers.rows, side) for side, run in sides], ignore_index=True)
    runs = pd.concat([_named(run.answers.runs, side) for side, run in sides], ignore_index=True)
    own = second.answers.replicates
    found = Answers(rows, runs, draws=own.draws, seed=own.seed).replicates
    arms = tuple(
        ArmChange(*pair, _changes(found, *pair), _facts(first.answers.arm(pair[0]), second.answers.arm(pair[1])))
        for pair in pairs
    )
    only_first, only_second = (
        tuple(arm for arm in run.arms if arm not in {pair[side] for pair in pairs})
        for side, run in enumerate((first, second))
    )
    seeds = set(first.answers.rows["seed"]) & set(second.answers.rows["seed"])
    return Comparison(arms, only_first, only_second, len(seeds))


def _name(arm: str, side: int) -> str:
    return f"{side} {arm}"


def _named(table: pd.DataFrame, side: int) -> pd.DataFrame:
    """A table with arms named apart from the other run's."""
    return table.assign(arm=table["arm"].map(lambda arm: _name(str(arm), side))) if len(table) else table


def _changes(found: Replicates, first: str, second: str) -> dict[str, Change]:
    first, second = _name(first, 0), _name(second, 1)
    changes = {}
    for measure in measures("changes"):
        before, after = found.of(first, measure), found.of(second, measure)
        if before.value is not None and after.value is not None:
            less = found.estimate(measure.between(second, first))
            changes[measure.name] = Change(measure, before, after, less)
    return changes


def _facts(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Facts that both asked: how the second run answered, beside what came of them in the first."""
    earlier = _usual(first)[[*FACT, "outcome", "tuned_says", "tuned_success"]]
    return earlier.merge(_usual(second), on=FACT, suffixes=("_first", ""))


def _usual(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per fact of an arm: of an isolated arm's models, that of the first whose outcome most of them share."""
    lines = transcript(rows)
    agreed = lines.groupby([*FACT, "outcome"])["copy"].transform("size")
    return lines.loc[agreed.sort_values(ascending=False, kind="stable").index].drop_duplicates(FACT).sort_index()


def render_comparison(first: Run, second: Run) -> str:
    """The page that compares two runs; the same runs give the same bytes."""
    parts = _parts(compare_runs(first, second), first, second)
    return render("comparison.html.j2", parts, title=f"{first.name} against {second.name}")


def answer(comparison: Comparison, first: str, second: str) -> str:
    """What changed between two runs of these names: of one arm how much, of several in how many which way, since no
    mean over unlike arms is an answer."""
    if comparison.arms and not comparison.shared_seeds:
        return f"{first} and {second} share no seed, so that nothing can be compared."
    if not comparison.arms:
        return f"{first} and {second} have no arm in common."
    changes = [arm.changes["retention_edited"].difference for arm in _measured(comparison)]
    if not changes:
        return f"In no arm did both {first} and {second} measure how many edits were kept."
    if len(changes) > 1:
        return f"From {first} to {second}, {_sides([change.side for change in changes])}"
    change = changes[0]
    start = f"From {first} to {second}, edited retention changed by {in_points(change)} points"
    if change.interval is None:
        return f"{start}, on too few facts to give an interval."
    if change.side:
        return f"{start}: {'more' if change.side > 0 else 'fewer'} edits were kept."
    return f"{start}, which shows neither a change nor its absence."


def _sides(sides: Sequence[int]) -> str:
    """In how many arms edits were kept more or less often."""
    more, fewer, total = sides.count(1), sides.count(-1), len(sides)
    found = [f"{words} in {count}" for words, count in (("more", more), ("fewer", fewer)) if count]
    if not found:
        return f"the number of edits kept shows neither a change nor its absence in any of {total} arms."
    said = f"{' and '.join(found)} of {total} arms"
    others = total - more - fewer
    return f"edits were kept: {said}" + (f"; in the other {others} there is no telling." if others else ".")


def _parts(comparison: Comparison, first: Run, second: Run) -> Iterator[Part]:
    said = answer(comparison, first.name, second.name)
    yield masthead(first, second)
    yield Words(said, "answer")
    if first.as_published != second.as_published:
        one = (first if first.as_published else second).name
        yield Words(
            f"Answers were judged by different criteria, in {one} as published: that is part of every change.", "note"
        )
    for run, only in ((first, comparison.only_first), (second, comparison.only_second)):
        if only:
            yield Words(f"Only in {run.name}: {'; '.join(only)}.", "note")
    if comparison.arms:
        yield Heading("What changed", "changes")
        if _measured(comparison) and comparison.shared_seeds:
            yield Words(
                f"Edited retention in {second.name} minus that in {first.name}, in percentage points. A triangle marks "
                "an interval that excludes zero."
            )
            yield Picture(partial(forest, comparison), said)
        table = _table(comparison, first.name, second.name)
        kept = table["measure"] == MEASURES.get("retention_edited").label
        if kept.any():
            yield Grid(table[kept].drop(columns="measure"), "Edited facts kept in both runs")
        yield Fold("All measures", [Grid(table, "What changed, in numbers", data=_plain(comparison))], look="printed")
        yield Words(
            "Changes are over the seeds that both runs have, with 95% intervals from a bootstrap in which a fact that "
            "both asked counts alike in both. P-values stand alone; nothing is corrected for looking at "
            f"{len(table)} of them.",
            "note",
        )
        yield Heading("Facts that one run kept and the other lost", "flips")
        for arm in comparison.arms:
            yield _flips(arm, first.name, second.name)
    for title, before, after in (
        ("Settings that differ", first.settings, second.settings),
        ("Provenance that differs", first.provenance, second.provenance),
    ):
        yield Heading(title, level=3)
        different = _different(before, after, first.name, second.name)
        yield Words("None.") if different.empty else Grid(different, title, look="pairs")


def forest(comparison: Comparison) -> Figure:
    """By how much edited retention changed in every arm."""
    changes = [(arm.title, arm.changes["retention_edited"].difference) for arm in _measured(comparison)]
    block = Block("", [Dot(title, CHANGES[direction(change)], change) for title, change in changes])
    return dot_plot([block], label="change of edited retention, points", differences="share")


def _measured(comparison: Comparison) -> list[ArmChange]:
    return [arm for arm in comparison.arms if "retention_edited" in arm.changes]


def _table(comparison: Comparison, first: str, second: str) -> pd.DataFrame:
    rows = []
    for arm in comparison.arms:
        for found in arm.changes.values():
            both, less = (found.first, found.second), found.difference
            unit = found.measure.unit
            shown = [figure(one, found.measure) for one in both]
            change = MISSING if less.value is None else f"{in_unit(less, unit)} {UNITS[unit]}"
            rows.append((arm.title, found.measure.label, *shown, change, p_value(less.p), str(less.seeds)))
    return pd.DataFrame(rows, columns=["arm", "measure", first, second, "change [95%]", "p", "shared seeds"])


def _plain(comparison: Comparison) -> pd.DataFrame:
    """The same as plain numbers."""
    lines = []
    for arm in comparison.arms:
        for name, found in arm.changes.items():
            about: dict[str, Any] = {"arm": arm.title, "measure": name}
            about |= {"first": found.first.value, "second": found.second.value}
            lines.append(about | found.difference.figures())
    return pd.DataFrame(lines)


def _flips(arm: ArmChange, first: str, second: str) -> Part:
    parts: list[Part] = []
    for flipped, where in ((arm.lost, second), (arm.regained, first)):
        content = {
            "title": f"Lost only in {where}",
            "arm": arm.title,
            "first": first,
            "second": second,
            "total": len(flipped),
        }
        if len(flipped):
            parts.append(Html(FLIPS, content | {"flips": flipped[:MOST_FLIPS].to_dict("records")}))
    facts = arm.facts.drop_duplicates(["fact_set", "fact_id"])
    note = f"{counted(len(facts), 'fact')} asked in both; {len(arm.lost)} lost only in {second}, "
    return Fold(arm.title, parts or [Words("None.", "note")], f"{note}{len(arm.regained)} only in {first}")


def _different(first: Mapping[str, Any], second: Mapping[str, Any], *names: str) -> pd.DataFrame:
    """What differs between two settings, by dotted names."""
    of_first, of_second = dict(flat(first)), dict(flat(second))
    rows = [
        (name, of_first.get(name, MISSING), of_second.get(name, MISSING))
        for name in of_first | of_second
        if of_first.get(name) != of_second.get(name)
    ]
    return pd.DataFrame(rows, columns=["name", *names])
