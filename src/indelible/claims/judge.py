"""From claims to verdicts: which arms of a study bear on a claim, what their effects are, and what that decides.

A comparison *supports* a claim when the 95% interval of its effect lies wholly on the claimed side of zero, the effect
is as large as the smallest that counts, and, where there is a test, its p, corrected after Holm over the claim's
comparisons, is below 0.05. It *contradicts* the claim when the whole interval lies below the smallest effect that
counts, and so after the same correction: an effect worth having is then excluded, whether there is none or one the
other way. Everything else is undecided. A claim as a whole is decided likewise, on the mean effect over its
comparisons, for which seeds and facts are redrawn jointly: arms of one study share them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import pandas as pd
from scipy.stats import norm

from indelible.claims.claim import Claim
from indelible.claims.rulings import Decision, Finding, Ruling
from indelible.numbers.answers import Answers
from indelible.numbers.arms import ArmFactors, arms_of, comparable, varying
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import Factor
from indelible.numbers.paired import holm
from indelible.numbers.power import more_facts
from indelible.numbers.replicates import generator_of
from indelible.numbers.words import counted, in_points

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Compared:
    """The arm that a claim speaks of, and the one it is held against (None where edited and intrinsic facts of one arm
    are compared), in words; whether every seed came to the figure at which it should stop, None without such a rule."""

    arm: str
    against: str | None
    label: str
    reached: bool | None


def judge(
    claims: Iterable[Claim], answers: Answers, runs: pd.DataFrame, *, always: Collection[str] = ()
) -> tuple[Ruling, ...]:
    """The verdicts on claims for which the study has arms; claims without any are left out, but for those that are to
    get a verdict always: that there is nothing to compare.

    Raises:
        DataError: if a table lacks a column.
    """
    arms, rulings = arms_of(runs), []
    for claim in claims:
        possible = comparisons(claim, arms)
        pairs = [pair for pair in possible if pair.reached or not claim.matched_utility]
        short = sum(pair.reached is False for pair in possible) if claim.matched_utility else 0
        if pairs:
            rulings.append(_ruling(claim, pairs, answers, short))
        elif short or claim.name in always:
            rulings.append(_without_comparisons(claim, short, arms))
    return tuple(rulings)


def comparisons(claim: Claim, arms: Sequence[ArmFactors]) -> list[Compared]:
    """The comparisons of a study that bear on a claim (`arms.comparable`), in order of the arms, whatever utility they
    reached. A label says the factors in which the comparisons of a claim differ among themselves."""
    fit = [arm for arm in arms if all(arm.factors[factor] in values for factor, values in claim.where.items())]
    pairs = []
    if claim.compare is None:
        which = varying(fit)
        pairs = [Compared(arm.name, None, _label(arm.factors, which) or arm.name, arm.reached) for arm in fit]
    else:
        factor, against = claim.compare.factor, claim.compare.against
        spoken_of = [arm for arm in fit if arm.factors[factor] in claim.compare.of]
        others = [arm for arm in fit if arm.factors[factor] == against]
        found = [(arm, other) for arm in spoken_of for other in others if comparable(arm, other, factor)]
        which = [one for one in varying([arm for arm, _ in found]) if one != factor]
        for arm, other in found:
            where = _label(arm.factors, which)
            what = f"{_value(factor, arm.factors[factor])} against {_value(factor, other.factors[factor])}"
            reached = None if None in (arm.reached, other.reached) else bool(arm.reached and other.reached)
            pairs.append(Compared(arm.name, other.name, f"{where}: {what}" if where else what, reached))
    labels = [pair.label for pair in pairs]
    names = [pair.arm if pair.against is None else f"{pair.arm} against {pair.against}" for pair in pairs]
    return [
        pair if labels.count(pair.label) == 1 else replace(pair, label=name)
        for pair, name in zip(pairs, names, strict=True)
    ]


def _effect(claim: Claim, pair: Compared, answers: Answers) -> Estimate:
    """The effect of a comparison, in the direction of the claim."""
    if pair.against is None:
        return answers.replicates.estimate(claim.measure.of(pair.arm, claim.sign))
    generator = generator_of(answers.replicates.seed, pair.label)
    found, _ = answers.difference(pair.arm, pair.against, claim.measure, sign=claim.sign, generator=generator)
    return found


def _without_comparisons(claim: Claim, short: int, arms: Sequence[ArmFactors]) -> Ruling:
    """The verdict where nothing can be compared, and why."""
    if short:
        why = f"{_short(short)} Nothing is left to compare at matched utility."
    else:
        asked: Factor = claim.compare.factor if claim.compare else next(iter(claim.where), "editor")
        there = ", ".join(sorted({str(arm.factors[asked]) for arm in arms})) or "nothing"
        why = f"The study has no arms to compare for it; its {asked} is {there}."
    return Ruling(claim.name, claim.sentence, "undecided", Estimate(), claim.smallest, why, ())


def _short(comparisons: int) -> str:
    noun = "comparison is" if comparisons == 1 else "comparisons are"
    return f"{comparisons} {noun} left out because an arm did not come to the figure at which it should stop."


def _ruling(claim: Claim, pairs: Sequence[Compared], answers: Answers, short: int) -> Ruling:
    effects = [_effect(claim, pair, answers) for pair in pairs]
    corrected = holm([effect.p for effect in effects])
    smaller = holm([_p_smaller(effect, claim.smallest) for effect in effects])
    findings = tuple(
        Finding(pair.label, decide(replace(effect, p=p), claim.smallest, less), replace(effect, p=p))
        for pair, effect, p, less in zip(pairs, effects, corrected, smaller, strict=True)
    )
    formed = [pair for pair, effect in zip(pairs, effects, strict=True) if effect.value is not None]
    whole = answers.replicates.mean(claim.measure, [(pair.arm, pair.against) for pair in formed], claim.sign)
    decision = decide(whole, claim.smallest)
    why = _why(claim, decision, whole, findings) + _unmatched(claim, pairs, answers)
    why += f" {_short(short)}" if short else ""
    return Ruling(claim.name, claim.sentence, decision, whole, claim.smallest, why, findings)


def _p_smaller(effect: Estimate, smallest: float) -> float | None:
    """One-sided p of an effect as large as counts, given one so much smaller: normal, as wide as the interval says."""
    if effect.value is None or effect.low is None or effect.high is None or effect.high <= effect.low:
        return None
    width = (effect.high - effect.low) / (2 * norm.ppf(0.975))
    return float(norm.cdf((effect.value - smallest) / width))


def decide(effect: Estimate, smallest: float, p_smaller: float | None = None) -> Decision:
    """What an effect in the direction of a claim decides; without a p, its interval alone does. ``p_smaller`` is
    one-sided, against the smallest effect that counts, corrected; None where no test applies."""
    if effect.value is None or effect.low is None or effect.high is None:
        return "undecided"
    if effect.low > 0 and effect.value >= smallest and (effect.p is None or effect.p < SIGNIFICANT):
        return "supported"
    if effect.high < smallest and (p_smaller is None or p_smaller < SIGNIFICANT / 2):
        return "contradicted"
    return "undecided"


def _unmatched(claim: Claim, pairs: Sequence[Compared], answers: Answers) -> str:
    """How many edits a matched comparison says nothing about."""
    if claim.estimate != "matched_gap":
        return ""
    tables = [[answers.counts(pair.arm, rate) for pair in pairs] for rate in ("matched_edited", "retention_edited")]
    matched, asked = (sum(0 if one is None else int(one["asked"].sum()) for one in table) for table in tables)
    return f" Of {asked} edits that worked, {asked - matched} had no match and are left out." if matched < asked else ""


def _why(claim: Claim, decision: Decision, whole: Estimate, findings: Sequence[Finding]) -> str:
    measured = [finding for finding in findings if finding.effect.value is not None]
    if whole.value is None:
        if measured:
            return "No seed finished in all of the arms, so that there is no mean over the comparisons."
        if claim.estimate == "matched_gap":
            return "No edit that worked has an intrinsic fact that was held alike."
        return "Nothing had succeeded before tuning, so that nothing can be compared."
    over = f"Over {len(measured)} comparisons on average" if len(measured) > 1 else f"For {measured[0].comparison}:"
    text = f"{over} {in_points(whole)} points in the direction of the claim"
    text += f", {whole.facts} facts, {counted(whole.seeds, 'seed')}."
    if len(measured) > 1:
        decisions = [finding.decision for finding in findings]
        decided = [f"{kind} in {decisions.count(kind)}" for kind in get_args(Decision) if kind in decisions]
        text += f" By itself {', '.join(decided)}."
    if decision == "contradicted" and whole.low is not None and whole.high is not None:
        if whole.low > 0:
            text += " There is an effect in the claimed direction, but it is smaller than counts."
        if whole.high >= 0:
            text += f" An effect of {claim.smallest * 100:g} points or more is excluded."
    if decision == "undecided" and (more := more_facts(whole, claim.smallest)) is not None:
        text += f" {more}"
    return text


def _label(factors: Mapping[Factor, str | int], which: Sequence[Factor]) -> str:
    return ", ".join(_value(factor, factors[factor]) for factor in which)


def _value(factor: Factor, value: str | int) -> str:
    """A value that can be understood without its column's name."""
    if factor == "paraphrases":
        return counted(int(value), "paraphrase")
    if factor == "mask" and value == "none":
        return "nothing frozen"
    return str(value)
