"""The extra loss at equal start: what it recovers exactly, what it leaves out, what studies with known truth say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from indelible.claims.claim import Claim
from indelible.claims.judge import decide
from indelible.numbers.alike.adjusting import extra_loss, mean_loss
from indelible.numbers.alike.log_odds import log_odds, losses
from indelible.numbers.answers import Answers, outcomes
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import MEASURES
from indelible.numbers.replicates import Replicates
from simulated import SimulatedArm, answer_row, simulate, simulate_losses

EXCESS = MEASURES.get("excess_loss")
CLAIM = Claim(name="lose-more", sentence="Edits lose more.", estimate="excess_loss")
STUDIES = 70


def halves(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return table[table["fact_set"] == "edited"], table[table["fact_set"] == "intrinsic"]


def estimate(table: pd.DataFrame, seed: int = 0, draws: int = 200) -> Estimate:
    return Replicates(lambda _: {}, lambda: {"memit": table}, draws=draws, seed=seed).of("memit", EXCESS)


def exact(effect: float, slope: float, extra_slope: float) -> pd.DataFrame:
    """Losses without noise, of two relations, wordings and seeds that each lose an amount of their own."""
    table, _ = simulate_losses(seeds=2, n_edits=20, n_intrinsic=40, generator=np.random.default_rng(0))
    edited = (table["fact_set"] == "edited").astype(float)
    start = table["start"]
    offset = (table["relation"] == "capital") * 0.7 + (table["kind"] == "prompt") * 0.3 + table["seed"] * 0.2
    return table.assign(loss=offset + slope * start + 0.1 * start**2 + edited * (effect + extra_slope * start))


def test_without_noise_the_mean_effect_over_the_edits_is_found_exactly() -> None:
    """Whatever relation, wording, seed and start do, and where edits lose the more the firmer they are."""
    table = exact(0.5, slope=0.4, extra_slope=0.25)
    fit = extra_loss(*halves(table))
    assert fit is not None
    compared = fit.questions[fit.questions["first"] == 1]
    assert fit.value == pytest.approx(0.5 + 0.25 * compared["start"].mean(), abs=1e-9)
    assert np.abs(fit.questions["error"]).max() < 1e-9


def test_over_both_the_two_ways_round_are_opposite() -> None:
    edited, intrinsic = halves(simulate_losses(generator=np.random.default_rng(1))[0])
    one, other = extra_loss(edited, intrinsic, over_both=True), extra_loss(intrinsic, edited, over_both=True)
    assert one is not None and other is not None
    assert one.value == pytest.approx(-other.value, abs=1e-9)


def test_errors_are_those_of_leaving_each_fact_out() -> None:
    """Reference: the regression fitted again without a fact, for every fact."""
    table, _ = simulate_losses(n_edits=8, n_intrinsic=16, starts=(1.0, 1.0), generator=np.random.default_rng(2))
    fit = extra_loss(*halves(table))
    assert fit is not None
    kept = fit.questions
    start = kept["start"] - kept.loc[kept["first"] == 1, "start"].mean()
    dummies = pd.get_dummies(kept[["relation", "kind"]], dtype=float)
    design = np.column_stack([kept["first"], start, start**2, start * kept["first"], dummies])
    for (fact_set, fact), error in kept.groupby(["fact_set", "fact_id"])["error"].sum().items():  # type: ignore[misc]
        rest = ~((kept["fact_set"] == fact_set) & (kept["fact_id"] == fact)).to_numpy()
        without = np.linalg.lstsq(design[rest], kept["loss"][rest], rcond=None)[0][0]
        assert error == pytest.approx(fit.value - without, abs=1e-9)


def test_what_has_no_counterpart_is_left_out_and_named() -> None:
    rows, _ = simulate([SimulatedArm("memit")], n_edits=30, n_intrinsic=60, generator=np.random.default_rng(3))
    generator = np.random.default_rng(4)
    spread = dict(zip(rows["fact_id"].unique(), generator.uniform(-2, -0.2, rows["fact_id"].nunique()), strict=True))
    rows["log_prob"] = rows["fact_id"].map(spread) - (rows["phase"] == "tuned") * 0.5
    rows.loc[rows["fact_id"] == "edited-0", "relation"] = "mayor"
    rows.loc[rows["fact_id"] == "edited-1", "log_prob"] = -1e-4  # held more firmly than any intrinsic fact
    rows["success"] = rows["success"] | (rows["phase"] == "edited")
    answers = Answers(rows, draws=100)
    number, facts = answers.without_counterpart("memit")
    assert {"edited-0", "edited-1"} <= set(facts) and len(facts) < 8
    assert number == 3 * len(facts)  # own wording and two held-out ones
    assert answers.replicates.of("memit", EXCESS).value is not None


def test_where_starts_hardly_overlap_there_is_no_value() -> None:
    apart, _ = simulate_losses(starts=(12.0, 0.0), generator=np.random.default_rng(5))
    assert extra_loss(*halves(apart)) is None
    assert estimate(apart).value is None
    other = simulate_losses(generator=np.random.default_rng(5))[0]
    edited, intrinsic = halves(other)
    assert extra_loss(edited.assign(relation="mayor"), intrinsic) is None
    assert extra_loss(edited.iloc[:0], intrinsic) is None and extra_loss(edited, intrinsic.iloc[:0]) is None
    assert mean_loss(edited.iloc[:0]) is None


@pytest.mark.parametrize("probability", [1e-30, 1e-9, 0.3, 0.5, 0.999])
def test_log_odds_are_right_near_none_and_near_all(probability: float) -> None:
    expected = np.log(probability) - np.log1p(-probability)
    assert log_odds(np.array([np.log(probability)]))[0] == pytest.approx(expected, rel=1e-12)
    assert np.isfinite(log_odds(np.array([0.0]))[0])
    assert log_odds(np.array([0.0]))[0] == pytest.approx(np.log(1e6), rel=1e-3)


def test_losses_are_of_what_had_succeeded_before_in_either_set() -> None:
    rows = pd.DataFrame(
        [
            answer_row("edited", "a", "edited", True, log_prob=np.log(0.8)),
            answer_row("edited", "a", "tuned", False, log_prob=np.log(0.2)),
            answer_row("edited", "b", "edited", False),
            answer_row("edited", "b", "tuned", True),
            answer_row("intrinsic", "a", "edited", True, log_prob=np.log(0.5)),
            answer_row("intrinsic", "a", "tuned", True, log_prob=np.log(0.5)),
            answer_row("intrinsic", "c", "edited", True),  # not asked again
        ]
    )
    found = losses(rows, outcomes(rows)).set_index(["fact_set", "fact_id"])
    assert found.index.to_list() == [("edited", "a"), ("intrinsic", "a")]
    assert found["loss"].to_list() == pytest.approx([2 * np.log(4), 0.0])
    assert found.loc[("edited", "a"), "start"] == pytest.approx(np.log(4))


def test_seeds_that_two_arms_share_are_those_that_are_compared() -> None:
    """The difference between two arms is of the seeds that both have, as with every other measure."""
    table, _ = simulate_losses(seeds=2, generator=np.random.default_rng(6))
    first = table[table["seed"] == 0]
    joint = Replicates(lambda _: {}, lambda: {"whole": table, "short": first}, draws=200)
    assert joint.estimate(EXCESS.between("whole", "short")).value == pytest.approx(0, abs=1e-9)
    assert joint.of("whole", EXCESS).value != joint.of("short", EXCESS).value
    assert (joint.of("whole", EXCESS).seeds, joint.estimate(EXCESS.between("whole", "short")).seeds) == (2, 1)


def rows_of(table: pd.DataFrame) -> pd.DataFrame:
    """A study that leaves these losses: what had succeeded before still does where its log-odds stay above zero."""
    end = table["start"] - table["loss"]
    phases = [("edited", table["start"], table["start"] > -99), ("tuned", end, end > 0)]
    made = [
        table.assign(phase=phase, log_prob=-np.log1p(np.exp(-odds)), success=success) for phase, odds, success in phases
    ]
    return pd.concat(made, ignore_index=True).assign(arm="memit", editor="memit", step=0)


def test_confidence_moves_the_gap_and_not_the_extra_loss() -> None:
    """Edits start 1.3 nats firmer and lose as intrinsic facts do at equal start: their success is kept far more often,
    their log-odds fall more, as all that is firm does, and at equal start nothing is left of either."""
    generator = np.random.default_rng(7)
    gaps, extra, plain = [], [], []
    for study in range(12):
        table, _ = simulate_losses(generator=generator)
        joint = Answers(rows_of(table), draws=100, seed=study).replicates
        gaps.append(joint.of("memit", MEASURES.get("gap")).value)
        extra.append(joint.of("memit", EXCESS).value)
        plain.append(float(np.diff([part["loss"].mean() for part in halves(table)])[0]))
    assert np.mean(gaps) < -0.1
    assert np.mean(plain) < -0.2
    assert abs(np.mean(extra)) < 2.5 * np.std(extra) / np.sqrt(len(extra))


@pytest.mark.parametrize(
    ("effect", "design"),
    [
        (0.0, {}),
        (0.3, {"seeds": 3, "n_edits": 24, "n_intrinsic": 60, "spread": 0.1}),
    ],
)
def test_intervals_cover_the_truth_and_verdicts_are_rarely_false(effect: float, design: dict[str, float]) -> None:
    """A part of benchmarks/coverage.py, which makes a thousand studies of each design and more of them."""
    generator = np.random.default_rng(8)
    smallest = CLAIM.model_copy(update={"smallest": effect or 0.3})
    covered = false = 0
    for study in range(STUDIES):
        table, truth = simulate_losses(effect=effect, generator=generator, **design)  # type: ignore[arg-type]
        found = estimate(table, study)
        assert found.low is not None and found.high is not None
        covered += found.low <= truth <= found.high
        false += decide(found, smallest) == ("excluded" if effect else "supported")
    # 93 to 97% as a thousand studies find, and what seventy may take or add.
    assert covered / STUDIES >= 0.87
    assert false / STUDIES <= 0.06
