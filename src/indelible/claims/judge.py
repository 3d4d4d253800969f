"""From claims to verdicts: which arms of a study bear on a claim, what their effects are, and what that decides.

A comparison *supports* a claim when the 95% interval of its effect lies wholly on the claimed side of zero, the effect
is as large as the smallest that counts, and, where there is a test, its p, corrected after Holm over the claim's
comparisons, is below 0.05. It *contradicts* the claim when the whole interval lies below the smallest effect that
counts, and so after the same correction: an effect worth having is then excluded, whether there is none or one the
other way. Everything else is
undecided. A claim as a whole is decided likewise, on the mean effect over its comparisons, for which seeds and facts
are redrawn jointly: arms of one study share them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from scipy.stats import norm

from indelible.claims.claim import Claim
from indelible.claims.rulings import Decision, Finding, Ruling
from indelible.numbers.answers import Answers
from indelible.numbers.arms import ArmFactors, arms_of, comparable, varying
from indelible.numbers.bootstrap import Interval
from indelible.numbers.matching import MatchedGap, matched_gap, mean_matched_gap
from indelible.numbers.measures import GAP_RATES, MEASURES, Factor
from indelible.numbers.paired import Hits, compare, hits_among, holm, with_bootstrap
from indelible.numbers.power import more_facts
from indelible.numbers.replicates import Effect, RateKey, Replicates, replicate
from indelible.numbers.summary import arm_generator
from indelible.numbers.words import counted, points_with_interval

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Compared:
    """What one comparison is about.

    Attributes:
        arm: the arm that the claim speaks of.
        against: the arm that it is held against; None where edited and intrinsic facts of one arm are compared.
        label: the comparison in words.
        reached: whether every seed of the arms came to the figure at which it should stop; None without such a rule.
    """

    arm: str
    against: str | None
    label: str
    reached: bool | None


def judge(
    claims: Iterable[Claim],
    rows: pd.DataFrame | Answers,
    runs: pd.DataFrame,
    *,
    always: Collection[str] = (),
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[Ruling, ...]:
    """The verdicts on claims for which the study has arms; claims without any are left out.

    Args:
        claims: what is claimed.
        always: names of claims that get a verdict even so: that there is nothing to compare.
        rows: tidy rows of the study, or the answers made of them.
        runs: its run table.
        draws: bootstrap draws.
        seed: seed of the bootstrap; the same seed gives the same verdicts.

    Raises:
        DataError: if a table lacks a column.
    """
    answers, arms = Answers.of(rows), arms_of(runs)
    every = [(claim, comparisons(claim, arms)) for claim in claims]
    bearing = [(claim, _at_utility(claim, pairs)) for claim, pairs in every]
    rates = {key for claim, pairs in bearing for pair in pairs for key in _weights(claim, pair)}
    names, measures = sorted({arm for arm, _ in rates}), sorted({measure for _, measure in rates})
    joint = replicate(answers, names, measures, draws=draws, seed=seed) if rates else None
    matched = {
        pair.arm: matched_gap(answers.arm(pair.arm), draws=draws, seed=seed)
        for claim, pairs in bearing
        if claim.estimate == "matched_gap"
        for pair in pairs
    }
    answered = {
        key: hits_among(answers.outcomes(key[0], MEASURES[key[1]].criterion), MEASURES[key[1]])
        for key in sorted(
            {key for claim, pairs in bearing if claim.compare for p in pairs for key in _weights(claim, p)}
        )
    }
    evidence = _Evidence(joint, matched, answered, seed)
    rulings = []
    for (claim, pairs), (_, possible) in zip(bearing, every, strict=True):
        short = sum(pair.reached is False for pair in possible) if claim.matched_utility else 0
        if pairs:
            rulings.append(_ruling(claim, pairs, evidence, short))
        elif short or claim.name in always:
            rulings.append(_without_comparisons(claim, short, arms))
    return tuple(rulings)


def _at_utility(claim: Claim, pairs: Sequence[Compared]) -> list[Compared]:
    """The comparisons that count where a claim asks for matched utility."""
    return [pair for pair in pairs if pair.reached is True or not claim.matched_utility]


def comparisons(claim: Claim, arms: Sequence[ArmFactors]) -> list[Compared]:
    """The comparisons of a study that bear on a claim, in order of the arms, whatever utility they reached.

    Arms are compared when they differ in the claim's factor and agree in all else (`arms.comparable`). A label says the
    factors in which the comparisons of a claim differ among themselves.
    """
    fit = [arm for arm in arms if all(arm.factors[factor] in values for factor, values in claim.where.items())]
    if claim.compare is None:
        which = varying(fit)
        labels = [_label(arm.factors, which) or arm.name for arm in fit]
        return [
            Compared(arm.name, None, label if labels.count(label) == 1 else arm.name, arm.reached)
            for arm, label in zip(fit, labels, strict=True)
        ]
    factor = claim.compare.factor
    found = [
        (arm, other)
        for arm in fit
        if arm.factors[factor] in claim.compare.of
        for other in fit
        if other.factors[factor] == claim.compare.against and comparable(arm, other, factor)
    ]
    which = [one for one in varying([arm for arm, _ in found]) if one != factor]
    pairs = []
    for arm, other in found:
        where = _label(arm.factors, which)
        what = f"{_value(factor, arm.factors[factor])} against {_value(factor, other.factors[factor])}"
        reached = None if None in (arm.reached, other.reached) else bool(arm.reached and other.reached)
        pairs.append(Compared(arm.name, other.name, f"{where}: {what}" if where else what, reached))
    labels = [pair.label for pair in pairs]
    return [
        pair if labels.count(pair.label) == 1 else replace(pair, label=f"{pair.arm} against {pair.against}")
        for pair in pairs
    ]


@dataclass(frozen=True)
class _Evidence:
    """What verdicts are formed from: rates drawn together, matched gaps by arm, and each question's outcome by rate."""

    joint: Replicates | None
    matched: Mapping[str, MatchedGap]
    answered: Mapping[RateKey, Hits]
    seed: int

    def effect(self, claim: Claim, pairs: Sequence[Compared]) -> Effect:
        """The mean effect of some comparisons, in the direction of the claim."""
        if claim.estimate == "matched_gap":
            found = mean_matched_gap([self.matched[pair.arm] for pair in pairs])
            return found if claim.sign == 1 else _mirrored(found)
        weights: dict[RateKey, float] = {}
        for pair in pairs:
            for key, weight in _weights(claim, pair).items():
                weights[key] = weights.get(key, 0.0) + claim.sign * weight / len(pairs)
        assert self.joint is not None, "rates were not formed"
        return self.joint.effect(weights)

    def p(self, claim: Claim, pair: Compared, effect: Effect) -> float | None:
        """From the bootstrap; between two arms the paired test's, if that is larger."""
        if pair.against is None:
            return effect.p
        first, second = (self.answered[arm, claim.estimate] for arm in (pair.arm, pair.against))
        paired = compare(first, second, generator=arm_generator(self.seed, pair.label))
        return with_bootstrap(paired, effect.p).p


def _weights(claim: Claim, pair: Compared) -> dict[RateKey, float]:
    """The contrast of rates that a comparison is; empty for the matched gap, which is none."""
    if claim.estimate == "matched_gap":
        return {}
    if pair.against is not None:
        return {(pair.arm, claim.estimate): 1.0, (pair.against, claim.estimate): -1.0}
    from_, less = GAP_RATES[claim.estimate]
    return {(pair.arm, from_): 1.0, (pair.arm, less): -1.0}


def _without_comparisons(claim: Claim, short: int, arms: Sequence[ArmFactors]) -> Ruling:
    """The verdict where nothing can be compared, and why."""
    if short:
        why = f"{_short(short)} Nothing is left to compare at matched utility."
    else:
        asked: Factor = claim.compare.factor if claim.compare else next(iter(claim.where), "editor")
        there = ", ".join(sorted({str(arm.factors[asked]) for arm in arms})) or "nothing"
        why = f"The study has no arms to compare for it; its {asked} is {there}."
    return Ruling(claim.name, claim.sentence, "undecided", None, None, claim.smallest, why, ())


def _short(comparisons: int) -> str:
    noun = "comparison is" if comparisons == 1 else "comparisons are"
    return f"{comparisons} {noun} left out because an arm did not come to the figure at which it should stop."


def _ruling(claim: Claim, pairs: Sequence[Compared], evidence: _Evidence, short: int) -> Ruling:
    effects = [evidence.effect(claim, [pair]) for pair in pairs]
    corrected = holm([evidence.p(claim, pair, effect) for pair, effect in zip(pairs, effects, strict=True)])
    smaller = holm([_p_smaller(effect, claim.smallest) for effect in effects])
    findings = tuple(
        Finding(
            pair.label,
            decide(effect, p, claim.smallest, less),
            effect.value,
            effect.interval,
            p,
            effect.facts,
            effect.seeds,
        )
        for pair, effect, p, less in zip(pairs, effects, corrected, smaller, strict=True)
    )
    formed = [pair for pair, effect in zip(pairs, effects, strict=True) if effect.value is not None]
    whole = evidence.effect(claim, formed) if formed else Effect(None, None, None, 0, 0)
    decision = decide(whole, whole.p, claim.smallest)
    why = _why(claim, decision, whole, findings) + (f" {_short(short)}" if short else "")
    return Ruling(claim.name, claim.sentence, decision, whole.value, whole.interval, claim.smallest, why, findings)


def _p_smaller(effect: Effect, smallest: float) -> float | None:
    """One-sided p of an effect as large as counts, given one so much smaller: normal, as wide as the interval says."""
    if effect.value is None or effect.interval is None or effect.interval.high <= effect.interval.low:
        return None
    width = (effect.interval.high - effect.interval.low) / (2 * norm.ppf(0.975))
    return float(norm.cdf((effect.value - smallest) / width))


def decide(effect: Effect, p: float | None, smallest: float, p_smaller: float | None = None) -> Decision:
    """What an effect in the direction of a claim decides.

    Args:
        effect: with its 95% interval; positive values are what the claim says.
        p: two-sided, against no effect; None where no test applies.
        smallest: the smallest effect that counts, as a fraction.
        p_smaller: one-sided, against an effect of ``smallest``, corrected; None where no test applies.
    """
    if effect.value is None or effect.interval is None:
        return "undecided"
    if effect.interval.low > 0 and effect.value >= smallest and (p is None or p < SIGNIFICANT):
        return "supported"
    if effect.interval.high < smallest and (p_smaller is None or p_smaller < SIGNIFICANT / 2):
        return "contradicted"
    return "undecided"


def _why(claim: Claim, decision: Decision, whole: Effect, findings: Sequence[Finding]) -> str:
    if whole.value is None:
        if claim.estimate == "matched_gap":
            return "No edit that worked has an intrinsic fact that was held alike."
        return "Nothing had succeeded before tuning, so that nothing can be compared."
    measured = [finding for finding in findings if finding.value is not None]
    over = f"Over {len(measured)} comparisons on average" if len(measured) > 1 else f"For {measured[0].comparison}:"
    interval = whole.interval
    figures = points_with_interval(whole.value, interval.low if interval else None, interval.high if interval else None)
    text = f"{over} {figures} points in the direction of the claim"
    text += f", {whole.facts} facts, {counted(whole.seeds, 'seed')}."
    if len(measured) > 1:
        decisions = [finding.decision for finding in findings]
        decided = [
            f"{kind} in {decisions.count(kind)}"
            for kind in ("supported", "contradicted", "undecided")
            if kind in decisions
        ]
        text += f" By itself {', '.join(decided)}."
    if decision == "contradicted" and interval is not None and interval.low > 0:
        text += " There is an effect in the claimed direction, but it is smaller than counts."
    if decision == "contradicted" and interval is not None and interval.high >= 0:
        text += f" An effect of {claim.smallest * 100:g} points or more is excluded."
    if decision == "undecided" and (more := more_facts(whole, claim.smallest)) is not None:
        text += f" {more}"
    return text


def _mirrored(effect: Effect) -> Effect:
    interval = None if effect.interval is None else Interval(-effect.interval.high, -effect.interval.low)
    return replace(effect, value=None if effect.value is None else -effect.value, interval=interval)


def _label(factors: Mapping[Factor, str | int], which: Sequence[Factor]) -> str:
    return ", ".join(_value(factor, factors[factor]) for factor in which)


def _value(factor: Factor, value: str | int) -> str:
    """A value that can be understood without its column's name."""
    if factor == "paraphrases":
        return counted(int(value), "paraphrase")
    if factor == "mask" and value == "none":
        return "nothing frozen"
    return str(value)
