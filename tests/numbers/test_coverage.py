"""Hundreds of studies with known truth: intervals cover it, no effect is rarely claimed, and confidence is no gap.

The designs are those for which the intervals are meant: 24 edited and 60 intrinsic facts per seed, arms that share
their facts, and seeds that differ modestly. Where intervals are known to fall short is said in `statistics`.
"""

from __future__ import annotations

import numpy as np
import pytest

from indelible.claims.claim import Claim
from indelible.claims.judge import decide
from indelible.numbers.answers import Answers
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import MEASURES, RateKey
from simulated import simulate_confidence
from simulated_counts import CONTRASTS, RETENTION, joint_of, simulate_counts, simulate_isolated

STUDIES = 400
MATCHED_STUDIES = 100
ISOLATED_STUDIES = 120
DRAWS = 400


def covers(found: Estimate, truth: float) -> bool:
    assert found.low is not None and found.high is not None
    return found.low <= truth <= found.high


ANY = Claim(name="any", sentence="Edits fail more often.", estimate="gap", smallest=0.0)


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.03)])
def test_intervals_cover_the_truth_in_95_percent_and_no_effect_is_rarely_claimed(seeds: int, spread: float) -> None:
    generator = np.random.default_rng([seeds, 1])
    covered = dict.fromkeys(CONTRASTS, 0)
    claimed = excluded = 0
    for study in range(STUDIES):
        counts = simulate_counts(RETENTION, seeds=seeds, spread=spread, generator=generator)
        joint = joint_of(counts, draws=DRAWS, seed=study)
        for name, (weights, truth) in CONTRASTS.items():
            effect = joint.estimate(weights)
            covered[name] += covers(effect, truth)
            if name == "no difference":
                claimed += decide(effect, ANY) == "supported"
                excluded += effect.side != 0
    shares = {name: count / STUDIES for name, count in covered.items()}
    assert all(0.925 <= share <= 0.985 for share in shares.values()), shares  # and what 400 studies may take or add
    assert excluded / STUDIES <= 0.07  # two-sided: what the intervals leave uncovered
    assert claimed / STUDIES <= 0.05  # a claim has a direction


ISOLATED, CONTROL = ("memit", "retention_intrinsic"), ("control", "retention_intrinsic")


@pytest.mark.parametrize(
    ("weights", "luck", "facts"), [({ISOLATED: 1.0}, 0.15, 60), ({ISOLATED: 1.0, CONTROL: -1.0}, 0.25, 100)]
)
def test_the_luck_of_tuning_single_copies_is_drawn(weights: dict[RateKey, float], luck: float, facts: int) -> None:
    """Copies that fared differently answer the same intrinsic facts: not drawn, their rate is covered in 83%; and so is
    its difference from a batch arm's, where the one row of that is taken for another copy that agrees."""
    generator = np.random.default_rng(11 if len(weights) == 1 else 12)
    design = {"seeds": 1, "luck": luck, "persistent": 4.0, "generator": generator}
    found = []
    for _ in range(20):
        counts = simulate_isolated((0.6, 0.7), copies=200, n_intrinsic=400, **design)
        found.append(sum(weight * counts[key]["hits"].mean() for key, weight in weights.items()))
    truth, covered = float(np.mean(found)), 0
    for study in range(ISOLATED_STUDIES):
        counts = simulate_isolated((0.6, 0.7), copies=24, n_intrinsic=facts, **design)
        covered += covers(joint_of(counts, draws=DRAWS, seed=study).estimate(weights), truth)
    assert 0.89 <= covered / ISOLATED_STUDIES <= 0.99


def test_the_matched_gap_removes_a_confidence_that_the_plain_gap_takes_for_a_loss_of_edits() -> None:
    generator = np.random.default_rng(3)
    plain, matched, covered = [], [], 0
    for study in range(MATCHED_STUDIES):
        rows, truth = simulate_confidence(generator=generator)
        assert truth == 0
        joint = Answers(rows, draws=DRAWS, seed=study).replicates
        plain.append(joint.of("memit", MEASURES.get("gap")))
        found = joint.of("memit", MEASURES.get("matched_gap"))
        matched.append(found.value)
        covered += covers(found, 0)
    mean_error = np.std(matched) / np.sqrt(MATCHED_STUDIES)
    assert np.mean([effect.value for effect in plain]) > 0.2
    assert np.mean([effect.side == 1 for effect in plain]) > 0.5
    assert abs(np.mean(matched)) < 0.02 + 2 * mean_error
    assert 0.91 <= covered / MATCHED_STUDIES <= 1
