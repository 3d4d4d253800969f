"""What a study can show: how many facts and seeds an effect needs, and the smallest effect that a design shows.

Power is worked out for the interval that `bootstrap` gives, before anything is measured. An effect varies by what its
facts add and by a normal deviation per seed; its estimate is taken as normal. The interval's own variance is what facts
explain, and more where seeds happen to differ by more than that, which follows a chi-square distribution; power is the
mean over it. Simulated studies confirm it (`tests/numbers/test_power.py`). The gap is a difference of two proportions
of independent facts; what an edit adds to the extra loss at equal start is known from a study that was made.

Of a finished study only the design is asked, never what it found: the power that it had for the effect it saw is that
effect's p once more (Hoenig & Heisey, *The Abuse of Power*, 2001).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq

from indelible.errors import DataError
from indelible.numbers.answers import Answers
from indelible.numbers.bootstrap import LEVEL, Term, between_seeds
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import CONTROL_EDITOR, MEASURES

USUAL_POWER = 0.8
MOST_EDITS = 100_000
"""Per seed; where more would be needed, no number of facts is named."""
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


@dataclass(frozen=True)
class Noise:
    """What an effect varies by, as standard deviations: what one edit adds, with the intrinsic facts that stand beside
    it, so that n edits in all add it divided by √n; and what a seed adds beyond that."""

    of_edit: float
    of_seed: float


USUAL_LOSS = Noise(of_edit=1.5, of_seed=0.2)
"""Of the extra loss of edits at equal start, in nats: what the built-in quick study's edits add (in their own wording
and a held-out one, with two intrinsic facts each), and the spread of a study whose seeds agree well."""


def chance(effect: float, noise: Noise, edits: int, seeds: int) -> float:
    """The chance that the 95% interval of an effect excludes zero, on the effect's own side, with so many edits per
    seed that work before tuning."""
    of_facts, whole = (noise.of_edit**2 / edits + seed**2 for seed in (0.0, noise.of_seed))
    of_facts, whole = of_facts / seeds, whole / seeds
    if whole == 0:
        return 1.0 if effect else 0.0
    if seeds == 1:
        estimated = np.array([of_facts])
    else:
        freedom = seeds - 1
        estimated = np.maximum(of_facts, whole * stats.chi2.ppf(_QUANTILES, freedom) / stats.chi2.median(freedom))
    shortfall = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt(estimated / whole) - abs(effect) / math.sqrt(whole)
    return float(np.mean(stats.norm.sf(shortfall)))


def power(plan: Plan, edits: int) -> float:
    """The `chance` of the gap of a plan."""
    kept_edited = plan.retention - plan.gap
    of_edit = kept_edited * (1 - kept_edited) + plan.retention * (1 - plan.retention) / plan.intrinsic_per_edit
    return chance(plan.gap, Noise(math.sqrt(of_edit), plan.spread), edits, plan.seeds)


def detectable_loss(noise: Noise, edits: int, seeds: int, wanted: float = USUAL_POWER) -> float:
    """The smallest extra loss, in nats, that a study shows with the wanted power."""
    most = 100 * math.hypot(noise.of_edit, noise.of_seed) or 1.0
    found = _smallest(lambda effect: chance(effect, noise, edits, seeds), most, wanted)
    return math.inf if found is None else found


def detectable_gap(plan: Plan, edits: int, wanted: float = USUAL_POWER) -> float | None:
    """The smallest gap that a study of the plan shows with the wanted power, whatever gap the plan has; None where not
    even edits that are all lost would show it."""
    return _smallest(lambda gap: power(replace(plan, gap=gap), edits), plan.retention, wanted)


def _smallest(power_of: Callable[[float], float], most: float, wanted: float) -> float | None:
    """The smallest effect of the wanted power; None where not even the most that there can be has it."""
    if power_of(most) < wanted:
        return None
    return float(brentq(lambda effect: power_of(effect) - wanted, 0.0, most))


def detectable(found: Estimate) -> float | None:
    """The smallest effect that the design of a finished study shows with 80% power, two-sided at 5%, from the width of
    its interval alone; None without one."""
    if found.low is None or found.high is None:
        return None
    reach = stats.norm.ppf((1 + LEVEL) / 2)
    return float((found.high - found.low) / (2 * reach) * (reach + stats.norm.ppf(USUAL_POWER)))


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
    found = [joint.terms(measured.of(arm)) for arm in arms]
    pairs = [pair for pair in found if pair is not None and all(sample.facts for sample in pair)]
    if not pairs:
        what = "No arm of this run has edits and intrinsic facts that were right before tuning and asked after it."
        raise DataError(what, "Plan without it.")
    variance = float(np.mean([between_seeds(pair, (1.0, -1.0)) * len(pair[0].asked) for pair in pairs]))
    return Plan(
        gap,
        retention=float(np.mean([intrinsic.rate for intrinsic, _ in pairs])),
        intrinsic_per_edit=float(np.mean([intrinsic.asked.sum() / edited.asked.sum() for intrinsic, edited in pairs])),
        seeds=int(rows.loc[(rows["phase"] == "tuned") & rows["arm"].isin(arms), "seed"].nunique()),
        spread=math.sqrt(max(variance, 0.0)),
    )


def noise_of(rows: pd.DataFrame) -> Noise | None:
    """What the extra loss of edits at equal start varies by in a finished study's tidy rows: root mean squares over its
    arms that edit. None where no arm has an extra loss."""
    joint, measured = Answers(rows).replicates, MEASURES.get("excess_loss")
    arms = map(str, rows.loc[rows["editor"] != CONTROL_EDITOR, "arm"].unique())
    found = [terms for arm in arms if (terms := joint.terms(measured.of(arm)))]
    if not found:
        return None
    of_edit = [_squares(terms) * np.count_nonzero(terms[0].asked) for terms in found]
    of_seed = [max(between_seeds(terms, [1.0] * len(terms)), 0.0) * len(terms[0].asked) for terms in found]
    return Noise(math.sqrt(np.mean(of_edit)), math.sqrt(np.mean(of_seed)))


def _squares(terms: Sequence[Term]) -> float:
    """The variance of their sum that comes of facts."""
    return sum(float((term.deviations().sum(axis=0) ** 2).sum()) for term in terms)
