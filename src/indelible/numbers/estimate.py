"""One figure with what is known of it: the value, its 95% interval, its p, and what it rests on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A rate, a difference of rates, or a mean, in fractions unless it is said otherwise; a loss, in nats.

    Attributes:
        value: None where there is nothing to form it of.
        low, high: the two-sided 95% interval; None where there is none, e.g. with a single fact.
        p: two-sided, against zero, from the draws of the interval; None where there is none.
        facts: distinct facts that it rests on, each counted once however many seeds and arms ask it.
        seeds: seeds that it rests on.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    facts: int = 0
    seeds: int = 0

    def figures(self) -> dict[str, float | None]:
        """As columns of a table."""
        return {name: getattr(self, name) for name in ("value", "low", "high", "p", "facts", "seeds")}

    @property
    def interval(self) -> Estimate | None:
        """Itself where there is an interval, else None."""
        return None if self.low is None or self.high is None else self

    @property
    def side(self) -> int:
        """1 where the whole interval is above zero, -1 where it is below; 0 where zero is in it, or there is none."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)
