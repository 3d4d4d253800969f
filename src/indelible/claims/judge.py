"""From claims to verdicts: which arms of a study bear on a claim, what their effects are, and what that decides.

A comparison *supports* a claim when the 95% interval of its effect lies wholly on the claimed side of zero, the effect
is as large as the smallest that counts, and, where there is a test, its p, corrected after Holm over the claim's
comparisons, is below 0.05. An effect that counts is *excluded* when the whole interval lies below the smallest that
counts, and so after the same correction, and such an effect could have been seen: there was room for it, and tuning
strained what was known (`strain`). In everything else the study cannot tell, and says why where it is the ceiling or
the dose.

Of a claim, arms of one family are decided together, on the mean effect over their comparisons, for which seeds and
facts are redrawn jointly: arms of one study share them. A family agrees in all but the levels of what is compared;
families are judged apart, corrected after Holm for their number: no mean over unlike arms is an answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import pandas as pd
from scipy.stats import norm

from indelible.claims.claim import Claim
from indelible.claims.rulings import Decision, Finding, Ruling
from indelible.claims.strain import Reach, controls_of, mean_reach, reach_of
from indelible.numbers.answers import Answers
from indelible.numbers.arms import ArmFactors, arms_of, comparable, family, varying
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import FACTORS, Factor
from indelible.numbers.paired import holm
from indelible.numbers.power import detectable
from indelible.numbers.replicates import generator_of
from indelible.numbers.words import UNITS, counted, in_unit, size

SIGNIFICANT = 0.05
AT_EQUAL_START = ("excess_loss", "edits_loss_equal", "matched_gap")


@dataclass(frozen=True)
class Compared:
    """The arm that a claim speaks of, and the one it is held against (None where edited and intrinsic facts of one arm
    are compared), in words; whether every seed came to the figure at which it should stop, None without such a rule;
    and the ``family`` of both (`arms.family`), and in words what both are, factor by factor."""

    arm: str
    against: str | None
    label: str
    reached: bool | None
    family: str = ""
    kinds: tuple[str, ...] = ()


def judge(
    claims: Iterable[Claim], answers: Answers, runs: pd.DataFrame, *, always: Collection[str] = ()
) -> tuple[Ruling, ...]:
    """The verdicts on claims for which the study has arms, one for each family of them; claims without any are left
    out, but for those that are to get a verdict always: that there is nothing to compare.

    Raises:
        DataError: if a table lacks a column.
    """
    arms = arms_of(runs)
    rulings: list[Ruling] = []
    for claim in claims:
        possible = comparisons(claim, arms)
        pairs = [pair for pair in possible if pair.reached or not claim.matched_utility]
        short = sum(pair.reached is False for pair in possible) if claim.matched_utility else 0
        if pairs:
            rulings += _rulings(claim, pairs, answers, controls_of(runs), short)
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
        pairs = [
            Compared(arm.name, None, _label(arm.factors, which) or arm.name, arm.reached, family(arm), _kinds(arm, arm))
            for arm in fit
        ]
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
            of_both = family(arm, factor) + family(other, factor)
            label = f"{where}: {what}" if where else what
            pairs.append(Compared(arm.name, other.name, label, reached, of_both, _kinds(arm, other)))
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


def _kinds(arm: ArmFactors, other: ArmFactors) -> tuple[str, ...]:
    """What two arms are that are held against each other, factor by factor."""
    of_both = [[_value(name, each.factors[name]) for each in (arm, other)] for name in FACTORS]
    return tuple(one if one == against else f"{one} against {against}" for one, against in of_both)


def _without_comparisons(claim: Claim, short: int, arms: Sequence[ArmFactors]) -> Ruling:
    """The verdict where nothing can be compared, and why."""
    if short:
        why = f"{_short(short)} Nothing is left to compare at matched utility."
    else:
        asked: Factor = claim.compare.factor if claim.compare else next(iter(claim.where), "editor")
        there = ", ".join(sorted({str(arm.factors[asked]) for arm in arms})) or "nothing"
        why = f"The study has no arms to compare for it; its {asked} is {there}."
    unit = claim.measure.unit
    smallest = claim.counts_from
    return Ruling(claim.name, "", claim.sentence, "cannot tell", Estimate(), unit, smallest, None, why, ())


def _short(comparisons: int) -> str:
    noun = "comparison is" if comparisons == 1 else "comparisons are"
    return f"{comparisons} {noun} left out because an arm did not come to the figure at which it should stop."


@dataclass(frozen=True)
class _Family:
    """Comparisons within one family, the mean over them and how far it could have gone."""

    label: str
    pairs: tuple[Compared, ...]
    findings: tuple[Finding, ...]
    whole: Estimate
    reach: Reach


def _rulings(
    claim: Claim, pairs: Sequence[Compared], answers: Answers, controls: dict[str, str], short: int
) -> Iterator[Ruling]:
    effects = [_effect(claim, pair, answers) for pair in pairs]
    reaches = [reach_of(claim, pair.arm, pair.against, answers, controls) for pair in pairs]
    findings = [
        Finding(pair.label, decide(effect, claim, reach, smaller), effect)
        for pair, reach, (effect, smaller) in zip(pairs, reaches, _corrected(effects, claim), strict=True)
    ]
    families = []
    for label, places in _families(pairs):
        formed = [pairs[place] for place in places if effects[place].value is not None]
        whole = answers.replicates.mean(claim.measure, [(pair.arm, pair.against) for pair in formed], claim.sign)
        own, found = tuple(pairs[place] for place in places), tuple(findings[place] for place in places)
        families.append(_Family(label, own, found, whole, mean_reach([reaches[place] for place in places])))
    corrected = _corrected([one.whole for one in families], claim)
    for one, (whole, smaller) in zip(families, corrected, strict=True):
        decision = decide(whole, claim, one.reach, smaller)
        why = _why(claim, decision, whole, one) + _left_out(claim, one.pairs, answers)
        why += f" {_short(short)}" if short else ""
        about = claim.name, one.label, claim.sentence, decision, whole, claim.measure.unit, claim.counts_from
        yield Ruling(*about, detectable(whole), why, one.findings)


def _families(pairs: Sequence[Compared]) -> list[tuple[str, list[int]]]:
    """The places of the pairs of each family, and what sets it apart from the others in words."""
    places: dict[str, list[int]] = {}
    for place, pair in enumerate(pairs):
        places.setdefault(pair.family, []).append(place)
    if len(places) == 1:
        return [("", found) for found in places.values()]
    kinds = [pairs[found[0]].kinds for found in places.values()]
    differing = [place for place in range(len(FACTORS)) if len({one[place] for one in kinds}) > 1]
    labels = [", ".join(one[place] for place in differing) for one in kinds]
    names = [" and ".join(dict.fromkeys(pairs[place].arm for place in found)) for found in places.values()]
    said = [label if labels.count(label) == 1 else name for label, name in zip(labels, names, strict=True)]
    return list(zip(said, places.values(), strict=True))


def _corrected(effects: Sequence[Estimate], claim: Claim) -> list[tuple[Estimate, float | None]]:
    """Effects with their p, and their p against the smallest effect that counts, both corrected after Holm."""
    ps = holm([effect.p for effect in effects])
    smaller = holm([_p_smaller(effect, claim.counts_from) for effect in effects])
    return [(replace(effect, p=p), less) for effect, p, less in zip(effects, ps, smaller, strict=True)]


def _p_smaller(effect: Estimate, smallest: float) -> float | None:
    """One-sided p of an effect as large as counts, given one so much smaller: normal, as wide as the interval says."""
    if effect.value is None or effect.low is None or effect.high is None or effect.high <= effect.low:
        return None
    width = (effect.high - effect.low) / (2 * norm.ppf(0.975))
    return float(norm.cdf((effect.value - smallest) / width))


def decide(effect: Estimate, claim: Claim, reach: Reach = Reach(), p_smaller: float | None = None) -> Decision:  # noqa: B008
    """What an effect in the direction of a claim decides; without a p, its interval alone does. ``p_smaller`` is
    one-sided, against the smallest effect that counts, corrected; None where no test applies."""
    if effect.value is None or effect.low is None or effect.high is None:
        return "cannot tell"
    smallest = claim.counts_from
    if effect.low > 0 and effect.value >= smallest and (effect.p is None or effect.p < SIGNIFICANT):
        return "supported"
    if reach.ceiling(claim):
        return "cannot tell: ceiling"
    if reach.dose(claim):
        return "cannot tell: dose"
    if effect.high < smallest and (p_smaller is None or p_smaller < SIGNIFICANT / 2):
        return "excluded"
    return "cannot tell"


def _left_out(claim: Claim, pairs: Sequence[Compared], answers: Answers) -> str:
    """How many edits a comparison at equal start says nothing about."""
    if claim.estimate == "matched_gap":
        tables = [[answers.counts(pair.arm, rate) for pair in pairs] for rate in ("matched_edited", "retention_edited")]
        matched, asked = (sum(0 if one is None else int(one["asked"].sum()) for one in table) for table in tables)
        return (
            f" Of {asked} edits that worked, {asked - matched} had no match and are left out."
            if matched < asked
            else ""
        )
    if claim.estimate == "excess_loss":
        left = [answers.without_counterpart(pair.arm) for pair in pairs]
        if number := sum(questions for questions, _ in left):
            facts = len({fact for _, names in left for fact in names})
            return f" {counted(number, 'question')} on {counted(facts, 'edit')} had no counterpart and are left out."
    return ""


def _why(claim: Claim, decision: Decision, whole: Estimate, of_family: _Family) -> str:
    measured = [finding for finding in of_family.findings if finding.effect.value is not None]
    unit = claim.measure.unit
    if whole.value is None:
        if measured:
            return "No seed finished in all of the arms, so that there is no mean over the comparisons."
        if claim.estimate in AT_EQUAL_START:
            return "Too few edits that worked have a counterpart: a fact of their relation that was held as firmly."
        return "Nothing had succeeded before tuning, so that nothing can be compared."
    over = f"Over {len(measured)} comparisons on average" if len(measured) > 1 else f"For {measured[0].comparison}:"
    text = f"{over} {in_unit(whole, unit)} {UNITS[unit]} in the direction of the claim"
    text += f", {whole.facts} facts, {counted(whole.seeds, 'seed')}."
    if len(measured) > 1:
        decisions = [finding.decision for finding in of_family.findings]
        decided = [f"{kind} in {decisions.count(kind)}" for kind in get_args(Decision) if kind in decisions]
        text += f" By itself {', '.join(decided)}."
    if decision == "excluded" and whole.low is not None and whole.high is not None:
        text += f" An effect of {size(claim.counts_from, unit)} or more is excluded here"
        text += ", though there is a smaller one." if whole.low > 0 else "."
        text += " It is the other way." if whole.high < 0 else ""
    elif decision.startswith("cannot tell: "):
        text += of_family.reach.why(claim)
    if decision != "supported" and (least := detectable(whole)) is not None:
        text += f" The smallest effect that this design shows in four of five studies is {size(least, unit)}."
    return text


def _label(factors: Mapping[Factor, str | int], which: Sequence[Factor]) -> str:
    return ", ".join(_value(factor, factors[factor]) for factor in which)


def _value(factor: Factor, value: str | int) -> str:
    """A value that can be understood without its column's name."""
    if factor == "paraphrases":
        return counted(int(value), "paraphrase")
    if factor == "protect":
        return "unprotected" if value == "none" else f"protected by {value}"
    if factor == "mask" and value == "none":
        return "nothing frozen"
    return str(value)
