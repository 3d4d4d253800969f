"""The answer in words, written from the summary alone and never kinder than its intervals.

A sentence says "more often" or "less often" only where the 95% interval of the gap excludes zero; anywhere else it says
that the study cannot tell. What weakens an answer (few working edits, one seed, an interval without width, a tuning
that taught nothing) is said beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from indelible.analysis.metrics import CONTROL_EDITOR, flip_ratio
from indelible.analysis.statistics import Interval
from indelible.analysis.tables import percent, points_with_interval

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class ArmVerdict:
    """What one arm shows."""

    arm: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """The answer of a study.

    Attributes:
        answer: one or two sentences.
        arms: what each arm with a gap shows.
        cautions: what a reader should hold against it.
    """

    answer: str
    arms: tuple[ArmVerdict, ...]
    cautions: tuple[str, ...]


def verdict(summary: Sequence[Summary]) -> Verdict:
    """Put a summary into words.

    Args:
        summary: what `summary.summarise` returned, or the same read from JSON.
    """
    measured = [arm for arm in summary if arm["gap"] is not None]
    arms = tuple(ArmVerdict(str(arm["arm"]), _arm_text(arm)) for arm in measured)
    return Verdict(_answer(measured), arms, tuple(_cautions(summary, measured)))


def gap_interval_of(arm: Summary) -> Interval | None:
    """The interval of the gap in one line of a summary."""
    return None if arm["gap_low"] is None else Interval(arm["gap_low"], arm["gap_high"])


def _answer(measured: Sequence[Summary]) -> str:
    if not measured:
        return "This study cannot say: in no arm were both edits and intrinsic facts measured before and after tuning."
    first = (
        f"Of the edits that worked before fine-tuning, {_span(measured, 'retention_edited')} still worked after it; of "
        f"the intrinsic facts, {_span(measured, 'retention_intrinsic')}."
    )
    intervals = [gap_interval_of(arm) for arm in measured]
    more = sum(interval is not None and interval.low > 0 for interval in intervals)
    less = sum(interval is not None and interval.high < 0 for interval in intervals)
    total = len(measured)
    if total == 1:
        second = f"{_direction(intervals[0])}."
    elif more == total:
        second = f"Edits were lost more often than intrinsic facts in all {total} arms."
    elif less == total:
        second = f"Edits were lost less often than intrinsic facts in all {total} arms."
    elif more + less == 0:
        second = f"In none of the {total} arms does the 95% interval of the gap exclude zero."
    else:
        found = [f"{words} often in {count}" for words, count in (("more", more), ("less", less)) if count]
        second = f"Compared with intrinsic facts, edits were lost {' and '.join(found)} of {total} arms"
        second += f"; in the other {total - more - less} this study cannot tell." if more + less < total else "."
    return f"{first} {second}"


def _span(measured: Sequence[Summary], key: str) -> str:
    """ "61%", or "between 31% (ft) and 83% (memit)" over several arms."""
    ordered = sorted(measured, key=lambda arm: float(arm[key]))
    low, high = ordered[0], ordered[-1]
    if percent(low[key]) == percent(high[key]):
        return percent(low[key])
    return f"between {percent(low[key])} ({low['arm']}) and {percent(high[key])} ({high['arm']})"


def _direction(interval: Interval | None) -> str:
    if interval is None:
        return "Too few facts had worked before tuning to give an interval"
    if interval.low > 0:
        return "Edits were lost more often than intrinsic facts: the 95% interval of the gap excludes 0"
    if interval.high < 0:
        return "Edits were lost less often than intrinsic facts: the 95% interval of the gap excludes 0"
    return "The 95% interval of the gap includes 0: neither a difference nor its absence is shown"


def _arm_text(arm: Summary) -> str:
    text = (
        f"gap {points_with_interval(arm['gap'], arm['gap_low'], arm['gap_high'])} points; "
        f"edit flip ratio {percent(flip_ratio(arm['retention_edited']))}. {_direction(gap_interval_of(arm))}."
    )
    if arm["edit_success"] is not None and arm["edit_success"] < 0.5:
        text += (
            f" Only {percent(arm['edit_success'])} of the edits had worked to begin with; this speaks of those alone."
        )
    return text


def _cautions(summary: Sequence[Summary], measured: Sequence[Summary]) -> list[str]:
    cautions = []
    for arm in summary:
        if arm["editor"] == CONTROL_EDITOR and arm["retention_intrinsic"] is not None:
            cautions.append(
                f"Without any edit ({arm['arm']}), the same tuning kept {percent(arm['retention_intrinsic'])} of the "
                "intrinsic facts: forgetting up to that point is not the edit's doing."
            )
    unfinished = [str(arm["arm"]) for arm in summary if arm["seeds"] == 0]
    if unfinished:
        cautions.append(f"Not finished in any seed, so without figures on retention: {', '.join(unfinished)}.")
    if measured:
        cautions.append(
            "Edited and intrinsic facts are not matched on how firmly the model held them before tuning: a gap, or the "
            "absence of one, can come from that."
        )
        if max(arm["seeds"] for arm in measured) <= 1:
            cautions.append("There is one seed: the intervals speak of other facts, not of other runs.")
        if len(measured) > 1:
            cautions.append(f"Each interval stands alone; nothing is corrected for looking at {len(measured)} arms.")
    if any(arm[key] in (0.0, 1.0) for arm in measured for key in ("retention_edited", "retention_intrinsic")):
        cautions.append(
            "Where all facts of a set survive, or none, resampling them shows no variation: intervals there are too "
            "narrow."
        )
    untaught = [
        str(arm["arm"])
        for arm in summary
        if None not in (arm["downstream_before"], arm["downstream_after"]) and not _improved(arm)
    ]
    if untaught:
        cautions.append(f"The downstream figure did not improve, so the tuning taught little: {', '.join(untaught)}.")
    short = [str(arm["arm"]) for arm in summary if arm["reached"] is False]
    if short:
        cautions.append(
            "Not every seed reached the figures at which it should stop, so that these arms do not compare at equal "
            f"utility: {', '.join(short)}."
        )
    return cautions


def _improved(arm: Summary) -> bool:
    gained: float = arm["downstream_after"] - arm["downstream_before"]
    return gained < 0 if arm["better"] == "lower" else gained > 0
