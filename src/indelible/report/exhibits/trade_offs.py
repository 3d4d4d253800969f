"""Who pays what: what tuning gained downstream against how many edits it left."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd

from indelible.numbers.words import percent, percent_with_interval
from indelible.report.drawing.trade_off import trade_off
from indelible.report.exhibit import Data, Fold, Grid, Group, Heading, Part, Picture, Words, exhibit
from indelible.report.run import Run

DATA = (
    "arm",
    "objective",
    "figure",
    "better",
    "gain",
    "gain_least",
    "gain_most",
    "retention_edited",
    "low",
    "high",
    "retention_intrinsic",
)
"""Columns of the file."""


@exhibit("trade-offs", place=50)
def trade_offs(run: Run) -> Iterator[Part]:
    """A panel for each objective and downstream figure."""
    found = gains(run)
    if found.empty:
        return
    yield Heading("Who pays what", "gain")
    yield Words(
        "Edited facts kept against what tuning gained downstream. Upright lines are 95% intervals, level lines run "
        "from the least to the greatest gain over seeds; hollow marks are of tuners other than full fine-tuning. Up "
        "and to the right is better."
    )
    panels = []
    for (objective, figure, better), arms in found.groupby(["objective", "figure", "better"], sort=False):
        axis = f"downstream gain: {'fall' if better == 'lower' else 'rise'} in {str(figure).replace('_', ' ')}"
        description = f"Edited retention against {axis}, {len(arms)} arms; the table has the values."
        file = f"trade-off-{objective}-{figure}".replace("_", "-")
        panels.append(Picture(partial(trade_off, arms, axis, run.editors), description, str(objective), file))
    yield Group(panels)
    table = Grid(_table(found), "Downstream gain and edited retention per arm.", "trade-off")
    yield Fold("The numbers", [table], look="printed")
    yield Data("trade-off", found[list(DATA)])


def gains(run: Run) -> pd.DataFrame:
    """Downstream gain and edited retention of every arm that has both, arms with the same figure together.

    Returns:
        The columns `DATA`, number (of the arm in its figure and table), editor, tuner and seeds. A gain is in the
        figure's own unit, up is better, the mean over seeds.
    """
    lines = []
    for line in run.summary:
        before, after = line["downstream_before"], line["downstream_after"]
        if line["retention_edited"] is None or before is None or after is None:
            continue
        sign = -1.0 if line["better"] == "lower" else 1.0
        own = run.runs[run.runs["arm"] == line["arm"]]
        of_seeds = (
            sign * (own["downstream_after"].astype("float64") - own["downstream_before"].astype("float64"))
        ).dropna()
        kept = run.estimate(str(line["arm"]), "retention_edited")
        lines.append(
            {name: str(line[name]) for name in ("arm", "editor", "tuner", "objective", "better")}
            | {"figure": str(line["figure"] or "figure"), "gain": sign * (after - before), "seeds": len(of_seeds)}
            | {"gain_least": of_seeds.min(), "gain_most": of_seeds.max()}
            | {"retention_edited": line["retention_edited"], "low": kept.low, "high": kept.high}
            | {"retention_intrinsic": line["retention_intrinsic"]}
        )
    if not lines:
        return pd.DataFrame()
    found = pd.DataFrame(lines)
    together = found.groupby(["objective", "figure", "better"], sort=False).ngroup().argsort(kind="stable")
    return found.iloc[together].reset_index(drop=True).assign(number=range(1, len(found) + 1))


def _table(found: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {
            "arm": arm["arm"],
            "no.": str(arm["number"]),
            "objective": arm["objective"],
            "figure": arm["figure"].replace("_", " "),
            "gain (least to most over seeds)": f"{arm['gain']:.3f}"
            + (f" ({arm['gain_least']:.3f} to {arm['gain_most']:.3f})" if arm["seeds"] > 1 else ""),
            "edited kept [95%]": percent_with_interval(arm["retention_edited"], arm["low"], arm["high"]),
            "intrinsic kept": percent(arm["retention_intrinsic"]),
        }
        for arm in found.to_dict("records")
    ]
    return pd.DataFrame(rows)
