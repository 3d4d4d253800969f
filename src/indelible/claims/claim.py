"""A claim is data: a sentence, the arms it compares, the estimate, the direction, and the smallest effect that counts.

A claim has one estimate. Of the arms that it speaks of, those of one family (`arms.family`: alike in all but the levels
of the factor compared) are judged together, and each family by itself; ``where`` names a family.

Read from YAML, the built-in ones (claims.yaml beside this file) like a user's own:

    - name: paraphrases-help
      sentence: Edits made with paraphrases lose less than edits made without, held equally firmly.
      estimate: edits_loss_equal
      compare: {factor: paraphrases, of: [1, 3, 5, 10], against: 0}
      where: {mask: [none]}
      direction: below
      smallest: 0.2

Without ``compare`` the estimate is one that an arm has on its own, the extra loss of edits at equal start or a gap, and
each arm is a comparison of edited with intrinsic facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from indelible.documents import read_yaml
from indelible.errors import ConfigError
from indelible.numbers.measures import MEASURES, SMALLEST, Factor, Measure, measures
from indelible.validation import validated


class Comparison(BaseModel):
    """Arms that differ in one factor and agree in all else.

    Attributes:
        factor: what they differ in.
        of: its values in the arms that are spoken of.
        against: its value in the arms that they are held against.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: Factor
    of: Annotated[tuple[str | int, ...], Field(min_length=1)]
    against: str | int

    @model_validator(mode="after")
    def _two_kinds(self) -> Self:
        if self.factor == "paraphrases" and not all(isinstance(value, int) for value in (*self.of, self.against)):
            raise ValueError("paraphrases are numbers")
        if self.against in self.of:
            raise ValueError(f"{self.against!r} would be compared with itself")
        return self


class Claim(BaseModel):
    """One claim.

    Attributes:
        name: short, for tables and file names.
        sentence: what is claimed.
        estimate: a measure that shows in claims: one that is a difference, e.g. the gap, or another with ``compare``.
        compare: which arms against which.
        where: only arms with these values, by factor; editor "none" (a control) never counts.
        direction: whether the claim is that the estimate is above or below zero.
        smallest: the smallest effect that counts: a fraction (0.05 is five points), or nats of log-odds; where it is
            not given, `measures.SMALLEST` of the estimate's unit (`counts_from`).
        strain: the least share of intrinsic facts that tuning must have cost without the edit, or else nothing is said
            against the claim.
        matched_utility: only arms that stopped at the downstream figure that they should reach in every seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    sentence: Annotated[str, Field(min_length=1)]
    estimate: str
    compare: Comparison | None = None
    where: dict[Factor, Annotated[tuple[str | int, ...], Field(min_length=1)]] = {}
    direction: Literal["above", "below"] = "above"
    smallest: Annotated[float | None, Field(ge=0)] = None
    strain: Annotated[float, Field(ge=0, le=1)] = 0.1
    matched_utility: bool = False

    @field_validator("estimate")
    @classmethod
    def _known(cls, estimate: str) -> str:
        known = [measure.name for measure in measures("claims")]
        if estimate not in known:
            raise ValueError(f"{estimate!r} is no estimate; there are {', '.join(known)}")
        return estimate

    @model_validator(mode="after")
    def _estimate_fits(self) -> Self:
        if self.compare is None and not self.measure.differences:
            raise ValueError(f"{self.estimate!r} is compared between arms: say which with 'compare'")
        if self.measure.unit == "share" and self.counts_from >= 1:
            raise ValueError(f"smallest is {self.smallest:g}, and a share is less than 1: 0.05 is five points")
        return self

    @property
    def measure(self) -> Measure:
        """What the estimate is."""
        return MEASURES.get(self.estimate)

    @property
    def counts_from(self) -> float:
        """The smallest effect that counts, in the estimate's unit."""
        return SMALLEST[self.measure.unit] if self.smallest is None else self.smallest

    @property
    def sign(self) -> int:
        """1 where the claim is of an effect above zero, else -1."""
        return 1 if self.direction == "above" else -1


def built_in_claims() -> tuple[Claim, ...]:
    """The claims that every report goes through."""
    entries = yaml.safe_load((files("indelible.claims") / "claims.yaml").read_text("utf-8"))
    return tuple(Claim.model_validate(entry) for entry in entries)


def read_claims(path: Path) -> tuple[Claim, ...]:
    """The claims in a YAML file, a list written as above; a ConfigError if it cannot be read or holds anything else."""
    entries = read_yaml(path, "claims file", ConfigError)
    if not isinstance(entries, list):
        raise ConfigError(f"The claims {path} are no list.", "Begin each claim with `- name: ...`.")
    claims = tuple(validated(Claim, entry, f"claim {number} in {path}") for number, entry in enumerate(entries, 1))
    check_names(claims)
    return claims


def check_names(claims: Sequence[Claim]) -> None:
    """Claims beside the built-in ones need names of their own; a ConfigError names one that is taken."""
    taken = {claim.name for claim in built_in_claims()}
    for claim in claims:
        if claim.name in taken:
            fix = "Give each a name of its own; some are built in."
            raise ConfigError(f"Two claims are named {claim.name!r}.", fix)
        taken.add(claim.name)
