"""The answer in words, written from the summary and never kinder than its intervals: "more" or "less" stands only where
the 95% interval of the extra loss at equal start, the primary estimand, excludes zero, and "alike" only where it
excludes what counts. What was kept is said beside it, and what weakens an answer after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from indelible.claims.claim import Claim
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import CONTROL_EDITOR, SMALLEST
from indelible.numbers.words import in_nats, percent, size

Summary = Mapping[str, Any]
FEWEST_WORKING = 0.5
"""Share of edits that should have worked before tuning."""
STRAIN: float = Claim.model_fields["strain"].default
"""Share of intrinsic facts that tuning should cost the control."""
KEPT = ("retention_edited", "retention_intrinsic", "retention_paraphrase", "retention_intrinsic_paraphrase")


@dataclass(frozen=True)
class Verdict:
    """The answer of a study in one sentence, with its interval where there is one; in detail, what was kept and, over
    several arms, how far they are apart; and what a reader should hold against it."""

    answer: str
    detail: str
    cautions: tuple[str, ...]


def verdict(summary: Sequence[Summary]) -> Verdict:
    """A summary (`summary.summarise`) in words. The answer is that of its plain arm: of those with edits and intrinsic
    facts, the one with nothing frozen or protected and no paraphrases. Several such arms have no one answer.
    """
    measured = [arm for arm in summary if arm["gap"] is not None]
    plain = [arm for arm in measured if (arm["paraphrases"], arm["mask"], arm["protect"]) == (0, "none", "none")]
    spoken_of = plain if plain else measured
    detail = _detail(spoken_of) + (f" {_sides(measured)}" if len(measured) > len(spoken_of) else "")
    return Verdict(_answer(measured, spoken_of), detail, tuple(_cautions(summary, measured)))


def with_unlike_criteria(found: Verdict) -> Verdict:
    """The verdict of a study that judges as the published one does (``as_published``), with what speaks against it."""
    caution = (
        "Judged as published: edits by their first token, intrinsic facts by the answer's being anywhere in 50 tokens. "
        "The gap is between two criteria, not between two kinds of facts alone, and those questions whose losses are "
        "compared at equal start, which had succeeded before tuning, were chosen by the two as well."
    )
    return replace(found, cautions=(caution, *found.cautions))


def of_line(arm: Summary, measure: str) -> Estimate:
    """A measure in one line of a summary, with its interval where the line has one."""
    return Estimate(arm[measure], arm.get(f"{measure}_low"), arm.get(f"{measure}_high"))


def _answer(measured: Sequence[Summary], spoken_of: Sequence[Summary]) -> str:
    if not measured:
        return "This study cannot say: in no arm were both edits and intrinsic facts measured before and after tuning."
    if len(spoken_of) > 1:
        return f"These {len(spoken_of)} arms are unlike, and have no one answer. {_sides(spoken_of)}"
    where = f" ({spoken_of[0]['arm']})" if len(measured) > 1 else ""
    return _sentence(f"At equal start{where}", of_line(spoken_of[0], "excess_loss"))


def _sentence(start: str, loss: Estimate) -> str:
    if loss.value is None:
        return (
            "This study cannot say whether edits lose more than intrinsic facts at equal start: too few edits that "
            "worked have a counterpart, an intrinsic fact of their relation that was held as firmly."
        )
    said = (
        f"{start}, fine-tuning took {in_nats(loss)} nats of log-odds more from edits than from intrinsic facts held as "
        "firmly"
    )
    if loss.low is None or loss.high is None:
        return f"{said}, on too few facts to give an interval."
    if loss.side:
        return f"{said}: edits lose {'more' if loss.side > 0 else 'less'}."
    most = max(-loss.low, loss.high)
    if most < SMALLEST["nats"]:
        return f"{said}: they lose alike, to within {size(SMALLEST['nats'], 'nats')}."
    if loss.high < SMALLEST["nats"]:
        return f"{said}: edits do not lose more by {size(SMALLEST['nats'], 'nats')} or above."
    return f"{said}, which shows neither a difference nor its absence."


def _detail(spoken_of: Sequence[Summary]) -> str:
    if not spoken_of:
        return ""
    edited, intrinsic, other_edited, other_intrinsic = (_kept(spoken_of, measure) for measure in KEPT)
    said = f"Of the edits that worked before fine-tuning {edited} still worked after it"
    said += f"; of the intrinsic facts, {intrinsic}."
    if None not in (other_edited, other_intrinsic):
        said += f" In held-out wordings: {other_edited} of the edits, {other_intrinsic} of the intrinsic facts."
    return said


def _kept(spoken_of: Sequence[Summary], measure: str) -> str | None:
    """What was kept, from one arm to another; None where nothing is known of it."""
    known = [arm for arm in spoken_of if arm[measure] is not None]
    return _span(known, measure) if known else None


def _sides(measured: Sequence[Summary]) -> str:
    """In how many arms edits lost more or less at equal start."""
    sides = [of_line(arm, "excess_loss").side for arm in measured]
    more, less = sides.count(1), sides.count(-1)
    total = len(measured)
    if total in (more, less):
        return f"Edits lost {'more' if more else 'less'} at equal start in all {total} arms."
    if more + less == 0:
        return f"In none of the {total} arms does the 95% interval of the extra loss exclude zero."
    found = [f"{words} in {count}" for words, count in (("more", more), ("less", less)) if count]
    said = f"At equal start edits lost {' and '.join(found)} of {total} arms"
    return said + (f"; in the other {total - more - less} this study cannot tell." if more + less < total else ".")


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
            if 1 - arm["retention_intrinsic"] < STRAIN:
                yield (
                    f"That is less than the {percent(STRAIN)} that tuning should cost: at so small a dose the absence "
                    "of a difference says little."
                )
    unfinished = [arm for arm in summary if arm["seeds"] == 0]
    partly = [arm for arm in unfinished if arm["retention_intrinsic"] is not None]
    without = [arm for arm in unfinished if arm["retention_intrinsic"] is None]
    yield from _of("Some copies did not finish; the figures are of the others", partly)
    yield from _of("Not finished in any seed, so without figures on retention", without)
    if measured:
        yield (
            "What is kept depends on how firmly it was held before tuning, in which edits and intrinsic facts differ: "
            "a gap, or the absence of one, can come from that. The extra loss at equal start does not."
        )
        seeds = {arm["seeds"] for arm in measured}
        if max(seeds) <= 1:
            yield "There is one seed: the intervals speak of other facts, not of other runs."
        elif len(seeds) > 1:
            each = ", ".join(f"{arm['arm']} {arm['seeds']}" for arm in measured)
            yield f"Not all arms finished in as many seeds, and differences are of those that all have: {each}."
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
