"""Power is what simulated studies show, and how much more data an undecided effect wants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from indelible.errors import DataError
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import MEASURES
from indelible.numbers.power import Plan, expected, facts_needed, more_facts, power, power_table
from simulated import SimulatedArm, joint_of, simulate, simulate_counts


@pytest.mark.parametrize(
    ("plan", "edits"),
    [
        (Plan(0.15, retention=0.8, seeds=1, spread=0.0), 60),
        (Plan(-0.12, retention=0.6, seeds=5, spread=0.04, intrinsic_per_edit=1.0), 40),
    ],
)
def test_power_is_the_share_of_simulated_studies_that_show_the_gap(plan: Plan, edits: int) -> None:
    generator = np.random.default_rng(12)
    studies, shown = 300, 0
    for study in range(studies):
        counts = simulate_counts(
            {"arm": (plan.retention - plan.gap, plan.retention)},
            seeds=plan.seeds,
            n_edits=edits,
            n_intrinsic=round(edits * plan.intrinsic_per_edit),
            spread=plan.spread / np.sqrt(2),  # of each set; the gap has the variance of both
            known=1.0,
            generator=generator,
        )
        joint = joint_of(counts, draws=300, seed=study)
        shown += joint.of("arm", MEASURES.get("gap")).side == np.sign(plan.gap)
    assert shown / studies == pytest.approx(power(plan, edits), abs=0.06)


def test_power_without_seeds_is_that_of_two_proportions() -> None:
    """Reference: 100 of each, 70% against 50%: the normal approximation by hand gives Φ(0.2 / 0.0678 − 1.96) = 0.84."""
    assert power(Plan(0.2, retention=0.7, seeds=1, spread=0.0, intrinsic_per_edit=1.0), 100) == pytest.approx(
        0.8389, abs=0.001
    )


def test_the_fewest_edits_have_the_power_and_one_fewer_has_not() -> None:
    plan = Plan(0.1)
    edits = facts_needed(plan)
    assert edits is not None
    assert power(plan, edits) >= 0.8 > power(plan, edits - 1)
    more_seeds = facts_needed(replace(plan, seeds=6))
    assert more_seeds is not None and more_seeds < edits
    smaller_gap = facts_needed(replace(plan, gap=0.05, spread=0.0))
    assert smaller_gap is not None and smaller_gap > 2 * edits
    assert facts_needed(replace(plan, gap=0.05, spread=0.2)) is None  # seeds vary too much for any number of facts


def test_a_table_of_power_rises_with_facts_and_seeds() -> None:
    table = power_table(Plan(0.1), [10, 50, 200], [1, 3, 5]).pivot(index="edits", columns="seeds", values="power")
    assert (table.diff().dropna() > 0).all(axis=None)
    assert (table.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)


def test_a_finished_run_gives_its_rates_and_spread() -> None:
    arm = SimulatedArm("memit", edit_success=1.0, locality=1.0, retention_edited=0.6, retention_intrinsic=0.8)
    alike, _ = simulate([arm], seeds=range(4), n_edits=60, n_intrinsic=120, wordings=0, neighbours=0, generator=_at(1))
    plan = expected(alike, 0.1)
    assert plan.retention == pytest.approx(0.8, abs=0.05)
    assert (plan.intrinsic_per_edit, plan.seeds, plan.gap) == (2.0, 4, 0.1)
    assert plan.spread < 0.06
    # Seeds that lose half of their edits, and nothing of the intrinsic: the gap varies between 0.4 and 0.
    uneven = alike.copy()
    uneven.loc[(uneven["fact_set"] == "edited") & (uneven["seed"] % 2 == 0), "success"] = True
    assert expected(uneven, 0.1).spread == pytest.approx(0.4 / np.sqrt(3), abs=0.06)
    with pytest.raises(DataError, match="No arm"):
        expected(alike[alike["phase"] != "tuned"], 0.1)


def test_arms_that_lack_a_seed_tell_of_the_seeds_they_have() -> None:
    """An arm stopped after two of four seeds has the spread of a study of these two."""
    arm = SimulatedArm("memit", edit_success=1.0, locality=1.0)
    rows, _ = simulate([arm], seeds=range(4), n_edits=60, n_intrinsic=60, wordings=0, neighbours=0, generator=_at(6))
    rows.loc[(rows["fact_set"] == "edited") & (rows["seed"] % 2 == 0), "success"] = True  # the gap varies
    other = rows.assign(arm="other", editor="ft")
    short = rows["seed"] < 2
    found = [expected(pd.concat(parts), 0.1) for parts in ([rows[short]], [rows[short], other], [other])]
    assert (found[0].seeds, found[1].seeds) == (2, 4)
    alone, beside, whole = (plan.spread for plan in found)
    assert alone > 0.05 and whole > 0.05
    assert beside == pytest.approx(np.sqrt((alone**2 + whole**2) / 2))


def _at(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("value", "low", "high", "smallest", "says"),
    [
        (0.10, -0.10, 0.30, 0.05, "About 4.0 times the facts (401 over all seeds in place of 100)"),
        (0.10, -0.05, 0.30, 0.05, "About 2.3 times the facts (226 over"),
        (0.10, 0.01, 0.19, 0.05, None),  # excludes zero, and large enough
        (0.01, -0.11, 0.13, 0.05, "About 9.0 times the facts (901 over"),  # to exclude the smallest that counts
        (0.01, -0.02, 0.04, 0.05, None),  # excludes the smallest that counts
        (0.04, 0.02, 0.06, 0.05, "About 4.0 times the facts (401 over"),
        (0.049, -0.10, 0.20, 0.05, "Even 100 times the facts"),
        (0.00, -0.10, 0.10, 0.00, "Even 100 times the facts"),
    ],
)
def test_how_much_more_data_an_undecided_effect_wants(
    value: float, low: float, high: float, smallest: float, says: str | None
) -> None:
    found = more_facts(Estimate(value, low, high, 0.5, 100, 3), smallest)
    assert found is None if says is None else found is not None and found.startswith(says)


@pytest.mark.parametrize(
    ("low", "seed_share", "says"),
    [
        # By hand: the interval's half width must fall from 0.2 to 0.1, the variance to a quarter of what it is.
        (-0.10, 0.0, "About 4.0 times the facts"),
        (-0.10, 0.2, "About 16.0 times the facts (1601 over"),  # 0.8 / (0.25 - 0.2)
        (-0.10, 0.9, "More seeds would decide it, not more facts: about 13 in place of 3"),  # above 3 · 4
        (-2.00, 0.9, "Even 100 times the facts"),
    ],
)
def test_what_seeds_add_is_not_lessened_by_facts(low: float, seed_share: float, says: str) -> None:
    found = more_facts(Estimate(0.10, low, 0.20 - low, 0.5, 100, 3, seed_share), 0.05)
    assert found is not None and found.startswith(says)


def test_the_share_of_seeds_is_that_of_the_variance() -> None:
    """Of a gap with many facts nearly all variance is seeds'; without spread, none is."""
    shares = {}
    for spread in (0.0, 0.1):
        counts = simulate_counts(
            {"arm": (0.6, 0.8)}, seeds=5, n_edits=2_000, n_intrinsic=2_000, spread=spread, generator=_at(2)
        )
        shares[spread] = joint_of(counts, draws=2_000).of("arm", MEASURES.get("gap")).seed_share
    assert shares[0.0] < 0.5 and 0.9 < shares[0.1] <= 1


def test_an_effect_without_an_interval_wants_nothing_that_can_be_said() -> None:
    assert more_facts(Estimate(0.1, facts=1, seeds=1), 0.05) is None
