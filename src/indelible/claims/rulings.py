"""What a study says about a claim: comparisons that bear on it, each with its effect, and the verdict on the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from indelible.numbers.estimate import Estimate

Decision = Literal["supported", "contradicted", "undecided"]


@dataclass(frozen=True)
class Finding:
    """One comparison that bears on a claim, in words, e.g. "reason: 3 paraphrases against 0 paraphrases"; its effect is
    in the direction of the claim, with a p that is Holm-corrected over the claim's comparisons."""

    comparison: str
    decision: Decision
    effect: Estimate


@dataclass(frozen=True)
class Ruling:
    """The verdict on a claim.

    Attributes:
        claim: its short name, e.g. "edits-are-lost-more".
        decision: on the mean effect over all comparisons.
        effect: that mean, in the direction of the claim.
        smallest: the smallest effect that counts, as a fraction.
        why: the figures behind the decision; for "undecided" it says how much more data it wants.
        findings: every comparison; empty where the study has no arms to compare.
    """

    claim: str
    sentence: str
    decision: Decision
    effect: Estimate
    smallest: float
    why: str
    findings: tuple[Finding, ...]

    def record(self) -> dict[str, Any]:
        """As claims.json has it."""
        findings = [
            {"comparison": one.comparison, "decision": one.decision}
            | _figures(one.effect)
            | {"p": one.effect.p, "facts": one.effect.facts, "seeds": one.effect.seeds}
            for one in self.findings
        ]
        said = {"claim": self.claim, "sentence": self.sentence, "decision": self.decision}
        return said | _figures(self.effect) | {"smallest": self.smallest, "why": self.why, "findings": findings}


def _figures(effect: Estimate) -> dict[str, Any]:
    interval = None if effect.interval is None else {"low": effect.low, "high": effect.high}
    return {"value": effect.value, "interval": interval}
