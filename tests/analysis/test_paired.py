"""Paired tests: the exact p by hand, facts moved whole, and no more false alarms than announced."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from indelible.analysis.paired import compare, holm, paired_test


def two_arms(outcomes: list[tuple[int, str, int, bool, bool]], kind: str = "prompt") -> pd.DataFrame:
    """Rows from (seed, fact, wording, kept in a, kept in b), all of which had succeeded before tuning."""
    rows = []
    for seed, fact, wording, *kept in outcomes:
        for arm, tuned in zip("ab", kept, strict=True):
            for phase, success in (("edited", True), ("tuned", tuned)):
                rows.append(
                    {
                        "arm": arm,
                        "editor": "memit",
                        "seed": seed,
                        "copy": 0,
                        "phase": phase,
                        "fact_set": "edited",
                        "fact_id": fact,
                        "kind": kind,
                        "wording": wording,
                        "success": success,
                        "first_token": success,
                    }
                )
    return pd.DataFrame(rows)


def test_one_question_per_fact_is_mcnemars_exact_test() -> None:
    """Nine facts only a kept, two only b, the rest both or neither: p is twice the binomial tail."""
    fates = [(True, False)] * 9 + [(False, True)] * 2 + [(True, True)] * 20 + [(False, False)] * 5
    rows = two_arms([(0, str(place), 0, *fate) for place, fate in enumerate(fates)])
    found = paired_test(rows, "a", "b", "retention_edited", generator=np.random.default_rng(0))
    assert found.p == pytest.approx(2 * binom.cdf(2, 11, 0.5))
    assert (found.test, found.discordant_for, found.discordant_against, found.facts) == ("McNemar, exact", 9, 2, 36)
    swapped = paired_test(rows, "b", "a", "retention_edited", generator=np.random.default_rng(0))
    assert (swapped.p, swapped.discordant_for, swapped.discordant_against) == (found.p, 2, 9)


def test_a_fact_in_several_wordings_or_seeds_moves_whole() -> None:
    """Five facts, each better in a in all of its questions: 2 of 32 sign patterns are as extreme, however many
    questions there are."""
    for seeds, wordings in ((1, 4), (3, 1), (3, 2)):
        rows = two_arms(
            [
                (seed, f"fact {fact}", wording, True, False)
                for seed in range(seeds)
                for fact in range(5)
                for wording in range(wordings)
            ],
            kind="paraphrase",
        )
        found = paired_test(rows, "a", "b", "retention_paraphrase", generator=np.random.default_rng(0))
        assert found.p == pytest.approx(2 / 32)
        assert (found.test, found.discordant_for, found.facts) == ("permutation of facts", 5 * seeds * wordings, 5)


def test_only_questions_that_had_succeeded_in_both_arms_are_compared() -> None:
    rows = two_arms([(0, str(fact), 0, True, False) for fact in range(10)])
    never = (rows["arm"] == "b") & (rows["fact_id"].isin(["0", "1"])) & (rows["phase"] == "edited")
    rows.loc[never, "success"] = False
    found = paired_test(rows, "a", "b", "retention_edited", generator=np.random.default_rng(0))
    assert (found.discordant_for, found.facts) == (8, 8)


def test_drawn_permutations_agree_with_all_of_them() -> None:
    """Twenty facts, more than are counted out: the sum of signs is binomial, which gives the exact p."""
    fates = [(True, False)] * 15 + [(False, True)] * 5
    outcomes = [(0, str(place), wording, *fate) for place, fate in enumerate(fates) for wording in range(2)]
    rows = two_arms(outcomes, kind="paraphrase")
    found = paired_test(rows, "a", "b", "retention_paraphrase", generator=np.random.default_rng(0))
    assert found.p == pytest.approx(2 * binom.cdf(5, 20, 0.5), abs=0.008)
    again = paired_test(rows.iloc[::-1], "a", "b", "retention_paraphrase", generator=np.random.default_rng(0))
    assert again == found


def test_without_a_difference_five_percent_or_fewer_are_significant() -> None:
    generator = np.random.default_rng(8)
    studies, significant = 600, 0
    for _ in range(studies):
        difficulty = generator.random(12)
        kept = generator.random((2, 3, 12)) < difficulty
        first, second = (
            {
                (seed, 0, "edited", str(fact), "prompt", 0): int(arm[seed, fact])
                for seed in range(3)
                for fact in range(12)
            }
            for arm in kept
        )
        found = compare(first, second, generator=generator)
        assert found.p is not None and found.facts == 12
        significant += found.p <= 0.05
    assert significant / studies <= 0.07  # 5% and what 600 studies may add to it


def test_nothing_in_common_has_no_p() -> None:
    rows = two_arms([(0, "x", 0, True, False)])
    apart = rows[(rows["arm"] == "a") | (rows["phase"] == "edited")]
    assert paired_test(apart, "a", "b", "retention_edited", generator=np.random.default_rng(0)).p is None
    same = two_arms([(0, str(fact), 0, True, True) for fact in range(4)])
    assert paired_test(same, "a", "b", "retention_edited", generator=np.random.default_rng(0)).p == 1.0
    control = rows.assign(editor="none")
    assert paired_test(control, "a", "b", "retention_edited", generator=np.random.default_rng(0)).facts == 0


def test_holms_correction() -> None:
    """Reference: worked by hand. Ordered 0.01, 0.03, 0.04 times 3, 2, 1, and never less than the one before."""
    assert holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None]) == [None]
