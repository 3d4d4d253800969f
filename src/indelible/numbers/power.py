"""How many facts and seeds a study needs to show a gap, and how much more data an undecided effect wants.

Power is worked out for the interval that `bootstrap` gives. The gap is a difference of two proportions of independent
facts, plus a normal deviation per seed; its estimate is taken as normal. The interval's own variance is what facts
explain, and more where seeds happen to differ by more than that, which follows a chi-square distribution; power is the
mean over it. Simulated studies confirm it (`tests/numbers/test_power.py`).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from indelible.errors import DataError
from indelible.numbers.answers import Answers
from indelible.numbers.bootstrap import LEVEL, between_seeds
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import CONTROL_EDITOR, MEASURES

USUAL_POWER = 0.8
MOST_EDITS = 100_000
"""Per seed; where more would be needed, no number of facts is named."""
MOST_TIMES = 100
"""Where an undecided effect wants more than so many times the data, only that is said."""
_QUANTILES = (np.arange(400) + 0.5) / 400


@dataclass(frozen=True)
class Plan:
    """What a study is expected to find, and with what: the ``gap`` (intrinsic less edited retention), the ``retention``
    of intrinsic facts, how many of these there are per edit (both counted before tuning, where they succeed), and the
    ``spread`` (standard deviation of the gap between seeds, beyond what facts explain); fractions."""

    gap: float
    retention: float = 0.7
    intrinsic_per_edit: float = 2.5
    seeds: int = 3
    spread: float = 0.03


def power(plan: Plan, edits: int) -> float:
    """The chance that the 95% interval of the gap excludes zero, on the gap's own side, with so many edits per seed
    that work before tuning."""
    kept_edited = plan.retention - plan.gap
    of_facts = kept_edited * (1 - kept_edited) + plan.retention * (1 - plan.retention) / plan.intrinsic_per_edit
    of_facts /= edits * plan.seeds
    whole = of_facts + plan.spread**2 / plan.seeds
    if plan.seeds == 1:
        estimated = np.array([of_facts])
    else:
        freedom = plan.seeds - 1
        estimated = np.maximum(of_facts, whole * stats.chi2.ppf(_QUANTILES, freedom) / freedom)
    if whole == 0:
        return 1.0 if plan.gap else 0.0
    shortfall = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(estimated / whole) - abs(plan.gap) / math.sqrt(whole)
    return float(np.mean(stats.norm.sf(shortfall)))


def facts_needed(plan: Plan, wanted: float = USUAL_POWER) -> int | None:
    """The fewest edits per seed with which a study has the wanted power; None where no number of them suffices."""
    edits = 1 + bisect_left(range(1, MOST_EDITS + 1), wanted, key=partial(power, plan))
    return edits if edits <= MOST_EDITS else None


def power_table(plan: Plan, edits: Sequence[int], seeds: Sequence[int]) -> pd.DataFrame:
    """Power by edits per seed and seeds: one row per pair, with the columns edits, seeds, power."""
    lines = [(count, number, power(replace(plan, seeds=number), count)) for count in edits for number in seeds]
    return pd.DataFrame(lines, columns=["edits", "seeds", "power"])


def expected(rows: pd.DataFrame, gap: float) -> Plan:
    """A plan to show a gap with the rates and the spread of a finished study's tidy rows.

    Retention of intrinsic facts and the facts per edit are means over its arms that edit. The spread is the root of the
    mean variance between the seeds that an arm has, 0 where seeds differ by no more than their facts explain.

    Raises:
        DataError: if in no arm both sets were measured before and after tuning.
    """
    arms = [str(name) for name in rows.loc[rows["editor"] != CONTROL_EDITOR, "arm"].unique()]
    joint, measured = Answers(rows).replicates, MEASURES.get("gap")
    found = [joint.samples(measured.of(arm)) for arm in arms]
    pairs = [pair for pair in found if pair is not None and all(sample.facts for sample in pair)]
    if not pairs:
        raise DataError("No arm of this run has edits and intrinsic facts that were measured.", "Give --retention.")
    variance = float(np.mean([between_seeds(pair, (1.0, -1.0)) * len(pair[0].asked) for pair in pairs]))
    return Plan(
        gap,
        retention=float(np.mean([intrinsic.rate for intrinsic, _ in pairs])),
        intrinsic_per_edit=float(np.mean([intrinsic.asked.sum() / edited.asked.sum() for intrinsic, edited in pairs])),
        seeds=int(rows.loc[(rows["phase"] == "tuned") & rows["arm"].isin(arms), "seed"].nunique()),
        spread=math.sqrt(max(variance, 0.0)),
    )


def more_facts(effect: Estimate, smallest: float) -> str | None:
    """How much more data would decide an undecided effect, if it stays what it is: a sentence, or None where there is
    no interval, or where it decides already.

    The variance has a part that facts explain, which falls with their number, and one that seeds add, which does not:
    only more seeds, each with as many facts, lessen both. An effect (positive is what is claimed) of at least
    ``smallest``, a fraction, is decided when the interval excludes zero; a smaller one when it excludes ``smallest``.
    """
    if effect.value is None or effect.low is None or effect.high is None:
        return None
    if effect.value >= smallest:
        reach, distance = effect.value - effect.low, effect.value
    else:
        reach, distance = effect.high - effect.value, smallest - effect.value
    if reach < distance:
        return None
    less = (reach / distance) ** 2 if distance > 0 else math.inf  # by so many times the variance must fall
    left = 1 - effect.seed_share * less if effect.seed_share else 1.0
    times = (1 - effect.seed_share) * less / left if left > 0 else math.inf
    if times <= MOST_TIMES:
        facts = math.floor(round(effect.facts * times, 6)) + 1
        return (
            f"About {max(times, 1.1):.1f} times the facts ({facts} over all seeds in place of {effect.facts}) would "
            "decide it, if the effect stays as it is."
        )
    if effect.seed_share > 0 and less <= MOST_TIMES:
        seeds = math.floor(round(effect.seeds * less, 6)) + 1
        return (
            f"More seeds would decide it, not more facts: about {seeds} in place of {effect.seeds}, if the effect "
            "stays as it is."
        )
    return f"Even {MOST_TIMES} times the facts would not decide it, if the effect stays as it is."
