"""What a study says about a claim: comparisons that bear on it, each with its effect, and a verdict for each family
of like arms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import Unit

Decision = Literal["supported", "excluded", "cannot tell: ceiling", "cannot tell: dose", "cannot tell"]
"""*Supported*: an effect that counts is shown. *Excluded*: an effect that counts is not there, where it could have been
seen. Else the study *cannot tell*: for a *ceiling*, as what the claim is held against leaves no room for such an
effect; for the *dose*, as tuning cost too little; or because its interval is too wide."""


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
        claim: its short name, e.g. "edits-lose-more".
        family: the arms that it is about, in words; "" where all that bear on the claim are of one family.
        decision: on the mean effect over the comparisons within the family.
        effect: that mean, in the direction of the claim; its p is Holm-corrected over the families of the claim.
        unit: of effects.
        smallest: the smallest effect that counts.
        detectable: the smallest effect that this design shows with 80% power; None without an interval.
        why: the figures behind the decision.
        findings: every comparison; empty where the study has no arms to compare.
    """

    claim: str
    family: str
    sentence: str
    decision: Decision
    effect: Estimate
    unit: Unit
    smallest: float
    detectable: float | None
    why: str
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        """For files and captions: the claim's, with its family's."""
        return "-".join(re.findall(r"[a-z0-9]+", f"{self.claim} {self.family}".lower()))

    def record(self) -> dict[str, Any]:
        """As claims.json has it."""
        findings = [
            {"comparison": one.comparison, "decision": one.decision}
            | _figures(one.effect)
            | {"p": one.effect.p, "facts": one.effect.facts, "seeds": one.effect.seeds}
            for one in self.findings
        ]
        said = {"claim": self.claim, "family": self.family, "sentence": self.sentence, "decision": self.decision}
        sizes = {"unit": self.unit, "smallest": self.smallest, "detectable": self.detectable}
        return said | _figures(self.effect) | sizes | {"why": self.why, "findings": findings}


def _figures(effect: Estimate) -> dict[str, Any]:
    interval = None if effect.interval is None else {"low": effect.low, "high": effect.high}
    return {"value": effect.value, "interval": interval}
