"""Why edits are lost, in arms that were explained: each parameter group's share, masks forecast, and what moved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import isnan

import pandas as pd
from matplotlib.figure import Figure

from indelible.numbers.estimate import Estimate
from indelible.numbers.words import MINUS, MISSING, in_points, percent, percent_with_interval, points_with_interval
from indelible.report.drawing.dot_plot import Block, Dot, dot_plot
from indelible.report.exhibit import Data, FilesOnly, Fold, Grid, Group, Heading, Part, Picture, Words, exhibit
from indelible.report.run import Run
from indelible.why.drift_summary import LABELS as DRIFTED
from indelible.why.drift_summary import drift_summary
from indelible.why.forecasts import with_outcomes
from indelible.why.shares import LABELS as GROUPS
from indelible.why.shares import mask_forecast, shares

MOST_ON_PAGE = 4
"""Arms whose shares the page draws; figures/ has them all."""


@exhibit("explained", place=60)
def explained(run: Run) -> Iterator[Part]:
    """Shares of the loss, and below them what masks would have kept and what moved under the edits."""
    if "shares" not in run.tables:
        return
    mixtures = run.tables["shares"]
    draws = run.answers.replicates.draws
    of_loss = shares(mixtures, draws=draws)
    yield Heading("Why edits are lost", "why")
    yield Words(
        "Each parameter group's share of the retention that tuning cost: its contribution, averaged over all orders in "
        "which the groups of the edited model could be exchanged for the tuned ones (Shapley value). Below zero, a "
        "group's change brought facts back."
    )
    pictures = [
        Picture(
            partial(shares_plot, own),
            f"Share of the loss by parameter group in {arm}; the table has the values.",
            str(arm),
            f"shares-{number}",
        )
        for number, (arm, own) in enumerate(of_loss.groupby("arm", sort=False), 1)
    ]
    yield Group(pictures[:MOST_ON_PAGE])
    yield FilesOnly(pictures[MOST_ON_PAGE:])
    table = Grid(_shares(of_loss), "Share of the loss by parameter group.", "shares")
    yield Fold("The numbers", [table], look="printed")
    yield Data("shares", of_loss)
    forecast = with_outcomes(mask_forecast(mixtures, draws=draws), run.answers, run.runs)
    table = Grid(_forecast(forecast), "What each mask would have kept.", "forecast")
    yield Fold("What each mask would have kept (a forecast, not a run)", [table], look="printed")
    yield Data("forecast", forecast)
    if "drift" in run.tables:
        drift = drift_summary(run.tables["drift"], draws=draws)
        yield Words(
            "An edited projection answers a subject's key k with W·k. How far the tuned model's vectors turned from "
            "the edited model's, on their way from the key to the answer (cosine 1: not at all), means over edited "
            "facts:"
        )
        moved = Grid(drift_table(drift), "What moved under the edits.", "drift")
        yield Fold("What moved under the edits, in numbers", [moved], look="printed")
        yield Data("drift", drift)


def shares_plot(of_arm: pd.DataFrame) -> Figure:
    """Each parameter group's share of what one arm lost, for edited and for intrinsic facts."""
    blocks: dict[str, list[Dot]] = {}
    for group, fact_set, *found in of_arm[["group", "fact_set", "share", "low", "high"]].to_numpy().tolist():
        value, low, high = (None if isnan(end) else end for end in found)
        share = Estimate(value, low, high)
        text = "none had succeeded" if share.value is None else in_points(share)
        blocks.setdefault(GROUPS.get(group, group), []).append(Dot("", fact_set, text, share))
    plot = [Block(group, dots) for group, dots in blocks.items()]
    return dot_plot(plot, label="points of retention lost", differences=True, key=("edited", "intrinsic"))


def _shares(of_loss: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {
            "arm": line["arm"],
            "facts": line["fact_set"],
            "parameter group": GROUPS.get(line["group"], line["group"]),
            "share, points of retention [95%]": points_with_interval(line["share"], line["low"], line["high"]),
            "of the loss": f"{MINUS}{percent(-line['of_loss'])}" if line["of_loss"] < 0 else percent(line["of_loss"]),
        }
        for line in of_loss.to_dict("records")
    ]
    return pd.DataFrame(rows)


def _forecast(forecast: pd.DataFrame) -> pd.DataFrame:
    rows = [
        {
            "arm": line["arm"],
            "mask": line["mask"],
            "edited kept, forecast [95%]": percent_with_interval(line["retention_edited"], line["low"], line["high"]),
            "gain, forecast, points [95%]": points_with_interval(line["gain"], line["gain_low"], line["gain_high"]),
            "gain when tried, points [95%]": points_with_interval(
                line["measured_gain"], line["measured_low"], line["measured_high"]
            ),
        }
        for line in forecast.to_dict("records")
    ]
    return pd.DataFrame(rows)


def drift_table(drift: pd.DataFrame) -> pd.DataFrame:
    """What moved under the edits, for readers."""
    rows = [
        {
            "arm": line["arm"],
            "what was compared": DRIFTED[line["quantity"]],
            "layer": MISSING if pd.isna(line["layer"]) else f"{line['layer']:g}",
            "cosine [95%]": _cosine(line["cosine"], line["low"], line["high"]),
            "change of the norm": _change(line["norm_change"]),
        }
        for line in drift.to_dict("records")
    ]
    return pd.DataFrame(rows)


def _cosine(value: float, low: float, high: float) -> str:
    interval = "" if isnan(low) else f" [{low:.3f}, {high:.3f}]"
    return MISSING if isnan(value) else f"{value:.3f}{interval}".replace("-", MINUS)


def _change(part: float) -> str:
    """A change as a part of what there was; to a tenth of a percent, since little is much here, and none is "+0.0%"."""
    return MISSING if isnan(part) else f"{round(part, 3) + 0.0:+.1%}".replace("-", MINUS)
