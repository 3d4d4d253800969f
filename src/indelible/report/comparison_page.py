"""The page that puts two runs side by side, out of the same parts as a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from indelible.numbers.words import MISSING, in_percent, in_points, p_value, points
from indelible.report.comparison import ArmChange, Comparison, compare_runs
from indelible.report.drawing.dot_plot import Block, Dot, direction, dot_plot
from indelible.report.exhibit import Fold, Grid, Heading, Html, Part, Picture, Words
from indelible.report.page import render
from indelible.report.run import Run
from indelible.report.settings_lines import flat

MOST_FLIPS = 100
CHANGES = {"more": "rise", "less": "fall", "unclear": "unclear"}
"""Direction of a difference -> style of a change of a rate."""
FLIPS = """
{% import "parts.html.j2" as parts %}
<h3>{{ title }}: {{ total }}</h3>
<div class="box" role="region" aria-label="{{ title }}" tabindex="0">
<table class="facts">
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


def render_comparison(first: Run, second: Run) -> str:
    """The page that compares two runs; the same runs give the same bytes."""
    parts = _parts(compare_runs(first, second), first, second)
    return render("comparison.html.j2", parts, first=first.name, second=second.name)


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


def _parts(comparison: Comparison, first: Run, second: Run) -> Iterator[Part]:
    said = answer(comparison, first.name, second.name)
    yield Words(said, "answer")
    for run, only in ((first, comparison.only_first), (second, comparison.only_second)):
        if only:
            yield Words(f"Only in {run.name}: {'; '.join(only)}.", "note")
    if comparison.arms:
        yield Heading("What changed", "changes")
        if any("retention_edited" in arm.changes for arm in comparison.arms):
            yield Words(
                f"Edited retention in {second.name} minus that in {first.name}, in percentage points. A triangle marks "
                "an interval that excludes zero."
            )
            yield Picture(partial(forest, comparison), said)
        table = _table(comparison, first.name, second.name)
        yield Grid(table, "What changed, in numbers")
        yield Words(
            "Changes are over the seeds that both runs have, with 95% intervals from a bootstrap in which a fact that "
            "both asked counts alike in both. P-values stand alone; nothing is corrected for looking at "
            f"{len(table)} of them.",
            "note",
        )
        yield Heading("Facts that one run kept and the other lost", "flips")
        for arm in comparison.arms:
            yield _flips(arm, first.name, second.name)
    for what, settings in (
        ("Settings", (first.settings, second.settings)),
        ("Provenance", (first.provenance, second.provenance)),
    ):
        yield Heading(f"{what} that differ" + ("s" if what == "Provenance" else ""))
        different = _different(*settings, first.name, second.name)
        yield Words("None.") if different.empty else Grid(different, f"{what} that differs", look="pairs")


def forest(comparison: Comparison) -> Figure:
    """By how much edited retention changed in every arm, and on average."""
    dots = []
    for arm in comparison.arms:
        if "retention_edited" in arm.changes:
            change = arm.changes["retention_edited"].difference
            dots.append(Dot(arm.title, CHANGES[direction(change)], in_points(change), change))
    blocks = [Block("", dots)]
    mean = comparison.mean
    if mean is not None and len(dots) > 1:
        blocks.append(Block("", [Dot("mean over arms", "mean", in_points(mean), mean)]))
    return dot_plot(blocks, label="change of edited retention, points", differences=True)


def _table(comparison: Comparison, first: str, second: str) -> pd.DataFrame:
    rows = []
    for arm in comparison.arms:
        for found in arm.changes.values():
            less = found.difference
            both = found.first, found.second
            shown = [points(one.value) if found.measure.differences else in_percent(one) for one in both]
            figures = in_points(less), p_value(less.p), str(less.seeds)
            rows.append((arm.title, found.measure.label, *shown, *figures))
    return pd.DataFrame(rows, columns=["arm", "measure", first, second, "change, points [95%]", "p", "shared seeds"])


def _flips(arm: ArmChange, first: str, second: str) -> Part:
    parts: list[Part] = []
    for flipped, where in ((arm.lost, second), (arm.regained, first)):
        if len(flipped):
            content = {"title": f"Lost only in {where}", "first": first, "second": second, "total": len(flipped)}
            parts.append(Html(FLIPS, content | {"flips": flipped[:MOST_FLIPS].to_dict("records")}))
    note = (
        f"{len(arm.facts)} facts asked in both; {len(arm.lost)} lost only in {second}, "
        f"{len(arm.regained)} only in {first}"
    )
    return Fold(arm.title, parts or [Words("None.", "note")], note, "arm")


def _different(first: Mapping[str, Any], second: Mapping[str, Any], *names: str) -> pd.DataFrame:
    """What differs between two settings, by dotted names."""
    of_first, of_second = dict(flat(first)), dict(flat(second))
    rows = [
        (name, of_first.get(name, MISSING), of_second.get(name, MISSING))
        for name in of_first | of_second
        if of_first.get(name) != of_second.get(name)
    ]
    return pd.DataFrame(rows, columns=["name", *names])
