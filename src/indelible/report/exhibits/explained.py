"""Why edits are lost, in arms that were explained: each parameter group's share, masks forecast, and what moved."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import isnan

import pandas as pd
from matplotlib.figure import Figure

from indelible.numbers.estimate import Estimate
from indelible.numbers.words import MINUS, MISSING, percent, percent_with_interval, points_with_interval
from indelible.report.drawing.dot_plot import Block, Dot, dot_plot
from indelible.report.exhibit import Data, Group, Heading, Part, Picture, Words, exhibit, numbers, texts
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
    pictures = []
    for number, (arm, own) in enumerate(of_loss.groupby("arm", sort=False), 1):
        description = f"Share of the loss by parameter group in {arm}; the table has the values."
        pictures.append(Picture(partial(shares_plot, own), description, str(arm), f"shares-{number}"))
    yield Group(pictures[:MOST_ON_PAGE])
    yield Group(pictures[MOST_ON_PAGE:], "files")
    yield numbers(_shares(of_loss), "Share of the loss by parameter group.", "shares", data=of_loss)
    yield Data("shares", of_loss)
    forecast = with_outcomes(mask_forecast(mixtures, draws=draws), run.answers, run.runs)
    title = "What each mask would have kept (a forecast, not a run)"
    yield numbers(_forecast(forecast), "What each mask would have kept.", "forecast", title, forecast)
    yield Data("forecast", forecast)
    if "drift" in run.tables:
        drift = drift_summary(run.tables["drift"], draws=draws)
        yield Words(
            "An edited projection answers a subject's key k with W·k. How far the tuned model's vectors turned from "
            "the edited model's, on their way from the key to the answer (cosine 1: not at all), means over edited "
            "facts:"
        )
        title = "What moved under the edits, in numbers"
        yield numbers(drift_table(drift), "What moved under the edits.", "drift", title, drift)
        yield Data("drift", drift)


def shares_plot(of_arm: pd.DataFrame) -> Figure:
    """Each parameter group's share of what one arm lost, for edited and for intrinsic facts."""
    blocks: dict[str, list[Dot]] = {}
    for group, fact_set, *found in of_arm[["group", "fact_set", "share", "low", "high"]].to_numpy().tolist():
        value, low, high = (None if isnan(end) else end for end in found)
        text = "none had succeeded" if value is None else ""
        blocks.setdefault(GROUPS.get(group, group), []).append(Dot("", fact_set, Estimate(value, low, high), text))
    plot = [Block(group, dots) for group, dots in blocks.items()]
    return dot_plot(plot, label="points of retention lost", differences="share", key=("edited", "intrinsic"))


def _shares(of_loss: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arm": of_loss["arm"],
            "facts": of_loss["fact_set"],
            "parameter group": of_loss["group"].map(lambda group: GROUPS.get(group, group)),
            "share, points of retention [95%]": texts(points_with_interval, of_loss, "share", "low", "high"),
            "of the loss": of_loss["of_loss"].map(percent),
        }
    )


def _forecast(forecast: pd.DataFrame) -> pd.DataFrame:
    gained, tried = ("gain", "gain_low", "gain_high"), ("measured_gain", "measured_low", "measured_high")
    columns = {
        "edited kept, forecast [95%]": texts(percent_with_interval, forecast, "retention_edited", "low", "high"),
        "gain, forecast, points [95%]": texts(points_with_interval, forecast, *gained),
        "gain when tried, points [95%]": texts(points_with_interval, forecast, *tried),
    }
    return forecast[["arm", "mask"]].assign(**columns)


def drift_table(drift: pd.DataFrame) -> pd.DataFrame:
    """What moved under the edits, for readers."""
    return pd.DataFrame(
        {
            "arm": drift["arm"],
            "what was compared": drift["quantity"].map(dict(DRIFTED)),
            "layer": [MISSING if pd.isna(layer) else f"{layer:g}" for layer in drift["layer"]],
            "cosine [95%]": texts(_cosine, drift, "cosine", "low", "high"),
            "change of the norm": drift["norm_change"].map(_change),
        }
    )


def _cosine(value: float, low: float, high: float) -> str:
    interval = "" if isnan(low) else f" [{low:.3f}, {high:.3f}]"
    return MISSING if isnan(value) else f"{value:.3f}{interval}".replace("-", MINUS)


def _change(part: float) -> str:
    """A change as a part of what there was; to a tenth of a percent, since little is much here, and none is "+0.0%"."""
    return MISSING if isnan(part) else f"{round(part, 3) + 0.0:+.1%}".replace("-", MINUS)
