"""Power is what simulated studies show, and the smallest effect that a design shows has it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from indelible.errors import DataError
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import MEASURES
from indelible.numbers.power import (
    Noise,
    Plan,
    chance,
    detectable,
    detectable_gap,
    detectable_loss,
    expected,
    facts_needed,
    noise_of,
    power,
    power_table,
)
from simulated import SimulatedArm, answer_row, simulate
from simulated_counts import joint_of, simulate_counts


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
    assert expected(uneven, 0.1).spread == pytest.approx(0.4 / np.sqrt(3), abs=0.02)
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


def test_a_study_shows_its_smallest_gap_in_four_of_five() -> None:
    plan = Plan(0.1)
    smallest = detectable_gap(plan, 60)
    assert smallest is not None
    assert power(replace(plan, gap=smallest), 60) == pytest.approx(0.8, abs=0.001)
    assert detectable_gap(replace(plan, gap=0.3), 60) == smallest  # whatever gap the plan has
    assert detectable_gap(replace(plan, retention=0.05), 10) is None  # not even edits that are all lost


def test_a_study_shows_its_smallest_extra_loss_in_four_of_five() -> None:
    """Power is that of simulated studies: losses with the noise that the table of losses is made with."""
    noise = Noise(of_edit=2.0, of_seed=0.0)
    smallest = detectable_loss(noise, 50, 2)
    assert chance(smallest, noise, 50, 2) == pytest.approx(0.8, abs=0.002)
    # By hand: with seeds that add nothing the standard error is 2/√100, and 2.8 of it are shown. That seeds add nothing
    # must be learnt from them: two make it half as much again, and twenty next to nothing.
    assert 1.3 < smallest / (2.802 * 0.2) < 1.5
    assert 1 < detectable_loss(noise, 50, 20) / (2.802 * 2 / np.sqrt(1000)) < 1.06
    assert detectable_loss(noise, 50, 1) == pytest.approx(2.802 * 2 / np.sqrt(50), rel=0.001)


def test_the_noise_of_a_run_is_that_of_its_losses() -> None:
    """An edit that loses more or less by 1 nat beside many intrinsic facts that all lose alike adds 1 nat."""
    lost = np.tile([0.0, 2.0], 40)
    rows = []
    for fact_set, losses in (("edited", lost), ("intrinsic", np.ones(400))):
        for fact, loss in enumerate(losses):
            of_fact = f"{fact_set}-{fact}"
            rows.append(answer_row(fact_set, of_fact, "edited", True, log_prob=log_prob_of(0.0)))
            rows.append(answer_row(fact_set, of_fact, "tuned", True, log_prob=log_prob_of(-loss)))
    noise = noise_of(pd.DataFrame(rows))
    assert noise is not None
    assert noise.of_edit == pytest.approx(1.0, rel=0.02) and noise.of_seed == 0
    assert noise_of(pd.DataFrame(rows).assign(editor="none")) is None


def log_prob_of(log_odds: float) -> float:
    return float(-np.log1p(np.exp(-log_odds)))


def test_what_a_finished_design_shows_follows_from_the_width_of_its_interval() -> None:
    assert detectable(Estimate(0.3, -0.1, 0.1)) == pytest.approx(0.1 * 2.801585 / 1.959964, rel=1e-5)
    assert detectable(Estimate(-0.7, -0.8, -0.6)) == pytest.approx(detectable(Estimate(0.0, -0.1, 0.1)))
    assert detectable(Estimate(0.3)) is None
