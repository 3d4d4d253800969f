"""How many facts and seeds a study needs to show a gap, and how much more data an undecided one wants."""

from __future__ import annotations

import math

from indelible.analysis.replicates import Effect

MOST_TIMES = 100
"""With more than so many times the data, only that is said."""


def more_facts(effect: Effect, smallest: float) -> str | None:
    """How much more data would decide an undecided effect, if it stays what it is: a sentence, or None.

    Half an interval's width shrinks with the square root of the facts. An effect of at least ``smallest`` is decided
    when the interval excludes zero; a smaller one when it excludes ``smallest``.

    Args:
        effect: an observed effect; positive is what is claimed.
        smallest: the smallest effect that counts, as a fraction.

    Returns:
        None where there is no interval, or where it decides already.
    """
    if effect.value is None or effect.interval is None:
        return None
    half = (effect.interval.high - effect.interval.low) / 2
    distance = effect.value if effect.value >= smallest else smallest - effect.value
    if effect.value >= smallest and effect.interval.low > 0:
        return None
    if effect.value < smallest and effect.interval.high < smallest:
        return None
    times = (half / distance) ** 2 if distance > 0 else math.inf
    if times > MOST_TIMES:
        return f"Even {MOST_TIMES} times the facts would not decide it, if the effect stays as it is."
    times = max(times, 1.1)
    facts = math.ceil(effect.facts * times)
    return (
        f"About {times:.1f} times the facts ({facts} in place of {effect.facts}) would decide it, if the effect stays."
    )
