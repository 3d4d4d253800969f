"""Whether a comparison could have shown the effect that a claim speaks of, before anything is said against the claim.

An instrument that was hardly loaded shows no difference between what it holds. Two things are asked of a comparison:
that there was *room*, as what the reference kept leaves an effect that counts arithmetically possible; and *strain*, as
tuning made the unedited model forget a stated share of what it knew (in the words of clinical trials, that the assay
was sensitive). Where one is missing the study cannot tell, and it says which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from indelible.claims.claim import Claim
from indelible.numbers.answers import Answers, pooled
from indelible.numbers.arms import pairs_with_control
from indelible.numbers.measures import Combination, Durability, Rate
from indelible.numbers.words import percent


@dataclass(frozen=True)
class Reach:
    """How far an effect could have gone: ``room``, the largest that is arithmetically possible in the direction of the
    claim, a fraction (infinite where there is no end to it); ``lost``, the share of intrinsic facts that tuning cost
    (None where it is not known)."""

    room: float = math.inf
    lost: float | None = None

    def ceiling(self, claim: Claim) -> bool:
        """Whether the smallest effect that counts is out of reach."""
        return self.room < claim.counts_from

    def dose(self, claim: Claim) -> bool:
        """Whether too little was lost for anything to be said against the claim."""
        return self.lost is not None and self.lost < claim.strain

    def why(self, claim: Claim) -> str:
        """In a sentence what is missing; nothing where nothing is."""
        if self.ceiling(claim):
            return (
                f" What it is held against leaves room for {self.room * 100:.1f} points, and "
                f"{claim.counts_from * 100:g} would count: such an effect is out of reach here."
            )
        if self.dose(claim):
            return (
                f" Tuning cost only {percent(self.lost)} of the intrinsic facts without the edit, and at least "
                f"{percent(claim.strain)} is asked for before anything is said against a claim."
            )
        return ""


def reach_of(claim: Claim, arm: str, against: str | None, answers: Answers, controls: dict[str, str]) -> Reach:
    """The reach of one comparison; ``controls`` has the control that was tuned as an arm was (`controls_of`)."""
    reference = arm if against is None else against
    tuned = controls.get(reference, reference)
    kept = pooled(answers.counts(tuned, "retention_intrinsic"))
    if kept is None:
        kept = pooled(answers.counts(reference, "retention_edited"))
    return Reach(_room(claim, reference, answers), None if kept is None else 1 - kept)


def mean_reach(reaches: Sequence[Reach]) -> Reach:
    """That of a mean over comparisons."""
    lost = [one.lost for one in reaches if one.lost is not None]
    room = sum(one.room for one in reaches) / len(reaches)
    return Reach(room, sum(lost) / len(lost) if lost else None)


def controls_of(runs: pd.DataFrame) -> dict[str, str]:
    """Each arm that edits and the control that was tuned alike, where there is one."""
    return dict(pairs_with_control(runs))


def _room(claim: Claim, reference: str, answers: Answers) -> float:
    """A rate can rise to one, or fall to none, from where the reference is. A gap is what the rate that is taken from
    leaves of the other."""
    measure = claim.measure
    if isinstance(measure, Rate | Durability):
        at, upward = pooled(answers.counts(reference, measure.name)), claim.sign > 0
    elif isinstance(measure, Combination) and claim.compare is None:
        held_against = [name for name, weight in measure.weights.items() if weight > 0]
        at, upward = pooled(answers.counts(reference, held_against[0])), claim.sign < 0
    else:
        return math.inf
    return math.inf if at is None else 1 - at if upward else at
