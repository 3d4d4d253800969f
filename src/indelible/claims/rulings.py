"""What a study says about a claim: the comparisons that bear on it, each with its effect, and the verdict on the whole.

Apart from `claims`, which makes them, so that the report can show rulings without knowing how they come about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from indelible.numbers.bootstrap import Interval

Decision = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True)
class Finding:
    """One comparison that bears on a claim.

    Attributes:
        comparison: which arms, in words, e.g. "memit, reason" or "memit with 3 paraphrases against none, reason".
        decision: what the comparison says.
        value: the effect in the direction of the claim, as a fraction; None where it cannot be formed.
        interval: its 95% interval, or None.
        p: two-sided, Holm-corrected over the claim's comparisons; None where no test applies.
        facts: how many facts (over all seeds) the effect rests on.
        seeds: how many seeds.
    """

    comparison: str
    decision: Decision
    value: float | None
    interval: Interval | None
    p: float | None
    facts: int
    seeds: int


@dataclass(frozen=True)
class Ruling:
    """The verdict on a claim.

    Attributes:
        claim: its short name, e.g. "edits-are-lost-more".
        sentence: the claim itself.
        decision: on the mean effect over all comparisons.
        value: that mean effect, as a fraction in the direction of the claim; None where nothing could be compared.
        interval: its 95% interval, or None.
        smallest: the smallest effect that counts, as a fraction.
        why: one sentence with the figures behind the decision; for "undecided" it says how much more data it wants.
        findings: every comparison; empty where the study has no arms to compare.
    """

    claim: str
    sentence: str
    decision: Decision
    value: float | None
    interval: Interval | None
    smallest: float
    why: str
    findings: tuple[Finding, ...]
