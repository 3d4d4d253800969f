"""The answer in words, written from the summary alone and never kinder than its intervals: "more often" or "less often"
stands only where the 95% interval of the gap excludes zero. What weakens an answer is said beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import CONTROL_EDITOR
from indelible.numbers.words import in_points, percent

Summary = Mapping[str, Any]
FEWEST_WORKING = 0.5
"""Share of edits that should have worked before tuning."""


@dataclass(frozen=True)
class Average:
    """Means over arms, each arm counting the same: how many they are, and their estimates."""

    arms: int
    edited: Estimate
    intrinsic: Estimate
    gap: Estimate


@dataclass(frozen=True)
class Verdict:
    """The answer of a study in one sentence, with its interval where there is one; over several arms, in detail, how
    far apart they are and in how many the interval excludes zero; and what a reader should hold against it."""

    answer: str
    detail: str
    cautions: tuple[str, ...]


def verdict(summary: Sequence[Summary], average: Average | None = None) -> Verdict:
    """A summary (`summary.summarise`) in words; the average is over its arms with a gap, where they are several."""
    measured = [arm for arm in summary if arm["gap"] is not None]
    detail = _detail(measured) if len(measured) > 1 else ""
    return Verdict(_answer(measured, average), detail, tuple(_cautions(summary, measured)))


def with_unlike_criteria(found: Verdict) -> Verdict:
    """The verdict of a study that judges as the published one does (``as_published``), with what speaks against it."""
    caution = (
        "Judged as published: edits by their first token, intrinsic facts by the answer's being anywhere in 50 tokens. "
        "The gap is between two criteria, not between two kinds of facts alone."
    )
    return replace(found, cautions=(caution, *found.cautions))


def gap_of(arm: Summary) -> Estimate:
    """The gap in one line of a summary."""
    return Estimate(arm["gap"], arm["gap_low"], arm["gap_high"])


def _answer(measured: Sequence[Summary], average: Average | None) -> str:
    if not measured:
        return "This study cannot say: in no arm were both edits and intrinsic facts measured before and after tuning."
    if len(measured) == 1:
        only = measured[0]
        return _sentence("Of", only["retention_edited"], only["retention_intrinsic"], gap_of(only))
    if average is None or average.edited.value is None or average.intrinsic.value is None or average.gap.value is None:
        return f"This study has no one figure for its {len(measured)} arms: no seed finished in all of them."
    start = f"On average over {average.arms} arms, of"
    return _sentence(start, average.edited.value, average.intrinsic.value, average.gap)


def _sentence(start: str, edited: float, intrinsic: float, gap: Estimate) -> str:
    said = (
        f"{start} the edits that worked before fine-tuning {percent(edited)} still worked after it, against "
        f"{percent(intrinsic)} of the intrinsic facts: a gap of {in_points(gap)} points"
    )
    if gap.interval is None:
        return f"{said}, on too few facts to give an interval."
    if gap.side:
        return f"{said}, so edits were lost {'more' if gap.side > 0 else 'less'} often than intrinsic facts."
    return f"{said}, which shows neither a difference nor its absence."


def _detail(measured: Sequence[Summary]) -> str:
    first = (
        f"Of the edits, {_span(measured, 'retention_edited')} were kept; of the intrinsic facts, "
        f"{_span(measured, 'retention_intrinsic')}."
    )
    sides = [gap_of(arm).side for arm in measured]
    more, less = sides.count(1), sides.count(-1)
    total = len(measured)
    if total in (more, less):
        second = f"Edits were lost {'more' if more else 'less'} often than intrinsic facts in all {total} arms."
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


def _cautions(summary: Sequence[Summary], measured: Sequence[Summary]) -> Iterator[str]:
    for arm in summary:
        if arm["editor"] == CONTROL_EDITOR and arm["retention_intrinsic"] is not None:
            yield (
                f"Without any edit ({arm['arm']}), the same tuning kept {percent(arm['retention_intrinsic'])} of the "
                "intrinsic facts: forgetting up to that point is not the edit's doing."
            )
    unfinished = [arm for arm in summary if arm["seeds"] == 0]
    partly = [arm for arm in unfinished if arm["retention_intrinsic"] is not None]
    without = [arm for arm in unfinished if arm["retention_intrinsic"] is None]
    yield from _of("Some copies did not finish; the figures are of the others", partly)
    yield from _of("Not finished in any seed, so without figures on retention", without)
    if measured:
        yield (
            "Edited and intrinsic facts are not matched on how firmly the model held them before tuning: a gap, or the "
            "absence of one, can come from that."
        )
        seeds = {arm["seeds"] for arm in measured}
        if max(seeds) <= 1:
            yield "There is one seed: the intervals speak of other facts, not of other runs."
        elif len(seeds) > 1:
            each = ", ".join(f"{arm['arm']} {arm['seeds']}" for arm in measured)
            yield f"Not all arms finished in as many seeds, and means over arms are over those that all have: {each}."
        if len(measured) > 1:
            yield f"Each interval stands alone; nothing is corrected for looking at {len(measured)} arms."
    few = [
        {"arm": f"{arm['arm']} ({percent(arm['edit_success'])})"}
        for arm in measured
        if arm["edit_success"] is not None and arm["edit_success"] < FEWEST_WORKING
    ]
    yield from _of("Few of the edits had worked to begin with; retention speaks of those alone", few)
    untaught = [arm for arm in summary if _taught_nothing(arm)]
    yield from _of("The downstream figure did not improve, so the tuning taught little", untaught)
    short = [arm for arm in summary if arm["reached"] is False]
    caution = "Not every seed reached the figures at which it should stop, so that these arms do not compare at equal "
    yield from _of(f"{caution}utility", short)


def _of(caution: str, arms: Sequence[Summary]) -> Iterator[str]:
    """A caution with the arms that it is about, where there are any."""
    if arms:
        yield f"{caution}: {', '.join(str(arm['arm']) for arm in arms)}."


def _taught_nothing(arm: Summary) -> bool:
    before, after = arm["downstream_before"], arm["downstream_after"]
    if before is None or after is None:
        return False
    return bool(after >= before if arm["better"] == "lower" else after <= before)
