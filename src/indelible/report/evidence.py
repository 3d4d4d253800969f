"""Everything that a study's tables show, worked out once, so that the page, the figures and the files say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pandas as pd

from indelible.claims.rulings import Ruling
from indelible.claims.verdict import Average, Verdict, verdict
from indelible.numbers.answers import Answers
from indelible.numbers.curves import Curve, retention_curves
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import CONTROL_EDITOR, measures
from indelible.numbers.replicates import Replicates
from indelible.report.drawing.heat_map import Heat
from indelible.report.drawing.trade_off import Payment, TradeOff
from indelible.report.transcript import TranscriptLine, transcript

COLUMN_FACTORS = ("objective", "tuner", "mask", "paraphrases")
"""What a heat map's columns can be, the first that differs between arms."""
Summary = Mapping[str, Any]


@dataclass(frozen=True)
class HeatMaps:
    """Edited retention and gap over editors and one other factor.

    Attributes:
        factor: what the columns are: "objective", or another where all arms have one objective.
        retention: edited retention, the mean over the arms of a cell.
        gap: the gap, likewise.
    """

    factor: str
    retention: Heat
    gap: Heat


@dataclass(frozen=True)
class Evidence:
    """What a study's tables show.

    Attributes:
        summary: what `summary.summarise` returned.
        runs: the run table.
        arms: in order of appearance in the run table.
        answer: the summary in words.
        retention: arm -> name of a measure that shows as a curve -> its estimate.
        average: over all arms with a gap; None where there are not at least two.
        curves: arm -> series -> points; the series "control" is the arm's control's intrinsic curve.
        transcripts: arm -> its facts.
        heat_maps: None where there is no grid.
        trade_offs: one per objective and downstream figure.
        rulings: on the claims put to the study.
        shares: arm, fact_set, group, share, low, high, ...; None where no arm was explained.
        forecast: arm, mask, retention_edited, low, high, gain, and what came of masks that were tried; None likewise.
        drift: arm, quantity, layer, cosine, low, high, ...: what moved under the edits; None likewise.
    """

    summary: Sequence[Summary]
    runs: pd.DataFrame
    arms: tuple[str, ...]
    answer: Verdict
    retention: Mapping[str, Mapping[str, Estimate]]
    average: Average | None
    curves: Mapping[str, Mapping[str, Curve]]
    transcripts: Mapping[str, Sequence[TranscriptLine]]
    heat_maps: HeatMaps | None
    trade_offs: Sequence[TradeOff]
    rulings: Sequence[Ruling]
    shares: pd.DataFrame | None
    forecast: pd.DataFrame | None
    drift: pd.DataFrame | None

    @property
    def measured(self) -> list[Summary]:
        """Arms that have a gap."""
        return [arm for arm in self.summary if arm["gap"] is not None]

    @property
    def last_step(self) -> int:
        """Where the longest curve ends."""
        ends = (max(points) for of_arm in self.curves.values() for points in of_arm.values())
        return max(ends, default=1)

    def first_curves(self, most: int) -> list[str]:
        """Arms whose curves stand for the study: all that have any or, of more than ``most``, the first of each editor
        and objective, every editor before any second one."""
        arms = [arm for arm in self.arms if self.curves[arm]]
        if len(arms) <= most:
            return arms
        firsts: dict[tuple[str, str], str] = {}
        for line in self.summary:
            if line["arm"] in arms and line["editor"] != CONTROL_EDITOR:
                firsts.setdefault((str(line["editor"]), str(line["objective"])), str(line["arm"]))
        seen: Counter[str] = Counter()
        turns: list[tuple[int, int, str]] = []
        for (editor, _), arm in firsts.items():
            turns.append((seen[editor], len(turns), arm))
            seen[editor] += 1
        chosen = {arm for _, _, arm in sorted(turns)[:most]}
        return [arm for arm in arms if arm in chosen]


def gather(
    answers: Answers,
    runs: pd.DataFrame,
    summary: Sequence[Summary],
    *,
    rulings: Sequence[Ruling] = (),
    shares: pd.DataFrame | None = None,
    forecast: pd.DataFrame | None = None,
    drift: pd.DataFrame | None = None,
) -> Evidence:
    """Work out what the tables show.

    Args:
        answers: of the study.
        runs: the run table.
        summary: what `summary.summarise` returned for them.
        rulings: on claims, to be shown.
        shares: what `shares.shares` returned, or None.
        forecast: what `forecasts.with_outcomes` returned, or None.
        drift: what `drift.drift_summary` returned, or None.
    """
    arms, shown = answers.arms(runs), measures("curves")
    retention = {arm: {one.name: answers.replicates.of(arm, one) for one in shown} for arm in arms}
    average = _average(answers.replicates, [str(arm["arm"]) for arm in summary if arm["gap"] is not None])
    return Evidence(
        summary=summary,
        runs=runs,
        arms=tuple(arms),
        answer=verdict(summary, average),
        retention=retention,
        average=average,
        curves=_curves(answers, arms, summary),
        transcripts={arm: transcript(answers.arm(arm)) if arm in answers else [] for arm in arms},
        heat_maps=heat_maps(summary),
        trade_offs=trade_offs(summary, runs, retention),
        rulings=tuple(rulings),
        shares=shares,
        forecast=forecast,
        drift=drift,
    )


def control_of(arm: Summary, summary: Sequence[Summary]) -> str | None:
    """The control that was tuned like an arm: same objective and tuner, and same mask where there is one; else None."""
    controls = [
        other
        for other in summary
        if other["editor"] == CONTROL_EDITOR
        and (other["objective"], other["tuner"]) == (arm["objective"], arm["tuner"])
    ]
    same_mask = [other for other in controls if other["mask"] == arm["mask"]]
    found = same_mask or controls
    return str(found[0]["arm"]) if found else None


def heat_maps(summary: Sequence[Summary]) -> HeatMaps | None:
    """Editors against the first of `COLUMN_FACTORS` that differs between arms; None without two rows or two columns."""
    measured = [arm for arm in summary if arm["gap"] is not None]
    factor = next((name for name in COLUMN_FACTORS if len({arm[name] for arm in measured}) > 1), None)
    editors = list(dict.fromkeys(str(arm["editor"]) for arm in measured))
    if factor is None or len(editors) < 2:
        return None
    columns = list(dict.fromkeys(str(arm[factor]) for arm in measured))
    cells: dict[tuple[str, str], list[Summary]] = {}
    for arm in measured:
        cells.setdefault((str(arm["editor"]), str(arm[factor])), []).append(arm)
    counted = {place: len(arms) for place, arms in cells.items()}

    def means(key: str) -> Heat:
        values = {place: sum(float(arm[key]) for arm in arms) / len(arms) for place, arms in cells.items()}
        return Heat(editors, columns, values, counted)

    return HeatMaps(factor, means("retention_edited"), means("gap"))


def trade_offs(
    summary: Sequence[Summary], runs: pd.DataFrame, retention: Mapping[str, Mapping[str, Estimate]]
) -> list[TradeOff]:
    """Downstream gain and edited retention of every arm that has both, by objective and downstream figure."""
    found: dict[tuple[str, str, str], list[Payment]] = {}
    for arm in summary:
        if arm["retention_edited"] is None or None in (arm["downstream_before"], arm["downstream_after"]):
            continue
        sign = -1.0 if arm["better"] == "lower" else 1.0
        own = runs[runs["arm"] == arm["arm"]].sort_values("seed")
        gains = sign * (own["downstream_after"].astype("float64") - own["downstream_before"].astype("float64"))
        name = str(arm["arm"])
        place = (str(arm["objective"]), str(arm["figure"] or "figure"), str(arm["better"]))
        found.setdefault(place, []).append(
            Payment(
                number=0,
                arm=name,
                editor=str(arm["editor"]),
                adapter=arm["tuner"] != "full",
                gain=sign * (arm["downstream_after"] - arm["downstream_before"]),
                gains=tuple(gains.dropna()),
                retention=float(arm["retention_edited"]),
                interval=retention[name]["retention_edited"].interval,
                retention_intrinsic=arm["retention_intrinsic"],
            )
        )
    numbers = count(1)
    return [
        TradeOff(*place, [replace(payment, number=next(numbers)) for payment in payments])
        for place, payments in found.items()
    ]


def _average(replicates: Replicates, arms: Sequence[str]) -> Average | None:
    if len(arms) < 2:
        return None
    edited = {(arm, "retention_edited"): 1 / len(arms) for arm in arms}
    intrinsic = {(arm, "retention_intrinsic"): 1 / len(arms) for arm in arms}
    gap = replicates.estimate(intrinsic | {key: -weight for key, weight in edited.items()})
    return Average(len(arms), replicates.estimate(edited), replicates.estimate(intrinsic), gap)


def _curves(answers: Answers, arms: Sequence[str], summary: Sequence[Summary]) -> dict[str, dict[str, Curve]]:
    own = {arm: retention_curves(answers, arm) for arm in arms}
    found: dict[str, dict[str, Curve]] = {arm: dict(curves) for arm, curves in own.items()}
    for line in summary:
        arm, control = str(line["arm"]), control_of(line, summary)
        if line["editor"] != CONTROL_EDITOR and control is not None and own.get(arm) and "intrinsic" in own[control]:
            found[arm]["control"] = own[control]["intrinsic"]
    return found
