"""Who pays what: what tuning gained downstream against how many edits it left."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas as pd

from indelible.numbers.words import percent, percent_with_interval
from indelible.report.drawing.trade_off import trade_off
from indelible.report.exhibit import Data, Group, Heading, Part, Picture, Words, exhibit, numbers, texts
from indelible.report.run import Run

FOR_THE_PICTURE = ["editor", "tuner", "seeds", "number"]
"""Columns that the file does not have."""


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
    data = found.drop(columns=FOR_THE_PICTURE)
    yield numbers(_table(found), "Downstream gain and edited retention per arm.", "trade-off", data=data)
    yield Data("trade-off", data)


def gains(run: Run) -> pd.DataFrame:
    """Downstream gain and edited retention of every arm that has both, arms with the same figure together.

    Columns: arm, editor, tuner, objective, figure, better, gain with gain_least and gain_most over seeds (in the
    figure's own unit, up is better), retention_edited with its interval low to high, retention_intrinsic, seeds, and
    number, of the arm in its picture and table.
    """
    lines = []
    for line in run.summary:
        before, after = line["downstream_before"], line["downstream_after"]
        if line["retention_edited"] is None or before is None or after is None:
            continue
        sign = -1.0 if line["better"] == "lower" else 1.0
        own = run.runs[run.runs["arm"] == line["arm"]].astype({"downstream_before": float, "downstream_after": float})
        of_seeds = (sign * (own["downstream_after"] - own["downstream_before"])).dropna()
        kept = run.estimate(str(line["arm"]), "retention_edited")
        about = {name: line[name] for name in ("arm", "editor", "tuner", "objective")}
        about |= {"figure": str(line["figure"] or "figure"), "better": str(line["better"])}
        gain = {"gain": sign * (after - before), "gain_least": of_seeds.min(), "gain_most": of_seeds.max()}
        retained = {"retention_edited": kept.value, "low": kept.low, "high": kept.high}
        retained |= {"retention_intrinsic": line["retention_intrinsic"]}
        lines.append(about | gain | retained | {"seeds": len(of_seeds)})
    if not lines:
        return pd.DataFrame()
    found = pd.DataFrame(lines)
    together = found.groupby(["objective", "figure", "better"], sort=False).ngroup().argsort(kind="stable")
    return found.iloc[together].reset_index(drop=True).assign(number=range(1, len(found) + 1))


def _table(found: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arm": found["arm"],
            "no.": found["number"].astype(str),
            "objective": found["objective"],
            "figure": found["figure"].str.replace("_", " "),
            "gain (least to most over seeds)": texts(_gain, found, "gain", "gain_least", "gain_most", "seeds"),
            "edited kept [95%]": texts(percent_with_interval, found, "retention_edited", "low", "high"),
            "intrinsic kept": found["retention_intrinsic"].map(percent),
        }
    )


def _gain(mean: float, least: float, most: float, seeds: float) -> str:
    return f"{mean:.3f} ({least:.3f} to {most:.3f})" if seeds > 1 else f"{mean:.3f}"
