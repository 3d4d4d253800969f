"""Paired tests: the exact p by hand, facts moved whole, and no more false alarms than announced."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from indelible.numbers.answers import outcomes
from indelible.numbers.measures import rate_named
from indelible.numbers.paired import ASKED, compare, hits_among, holm
from simulated import answer_row


def two_arms(outcomes: list[tuple[int, str, int, bool, bool]], kind: str = "prompt") -> pd.DataFrame:
    """Rows from (seed, fact, wording, kept in a, kept in b), all of which had succeeded before tuning."""
    rows = []
    for seed, fact, wording, *kept in outcomes:
        for arm, tuned in zip("ab", kept, strict=True):
            for phase, success in (("edited", True), ("tuned", tuned)):
                rows.append(answer_row("edited", fact, phase, success, arm=arm, seed=seed, kind=kind, wording=wording))
    return pd.DataFrame(rows)


def paired(rows: pd.DataFrame, first: str, second: str, measure: str) -> tuple[float | None, str]:
    arms = [hits_among(outcomes(rows[rows["arm"] == arm]), rate_named(measure)) for arm in (first, second)]
    return compare(*arms, generator=np.random.default_rng(0))


def test_one_question_per_fact_is_mcnemars_exact_test() -> None:
    """Nine facts only a kept, two only b, the rest both or neither: p is twice the binomial tail."""
    fates = [(True, False)] * 9 + [(False, True)] * 2 + [(True, True)] * 20 + [(False, False)] * 5
    rows = two_arms([(0, str(place), 0, *fate) for place, fate in enumerate(fates)])
    found = paired(rows, "a", "b", "retention_edited")
    assert found == (pytest.approx(2 * binom.cdf(2, 11, 0.5)), "McNemar, exact")
    assert paired(rows, "b", "a", "retention_edited") == found


@pytest.mark.parametrize(("seeds", "wordings"), [(1, 4), (3, 1), (3, 2)])
def test_a_fact_in_several_wordings_or_seeds_moves_whole(seeds: int, wordings: int) -> None:
    """Five facts, each better in a in all of its questions: 2 of 32 sign patterns are as extreme, however many
    questions there are."""
    questions = [(seed, fact, wording) for seed in range(seeds) for fact in range(5) for wording in range(wordings)]
    rows = two_arms([(seed, f"fact {fact}", wording, True, False) for seed, fact, wording in questions], "paraphrase")
    assert paired(rows, "a", "b", "retention_paraphrase") == (pytest.approx(2 / 32), "permutation of facts")


def test_only_questions_that_had_succeeded_in_both_arms_are_compared() -> None:
    rows = two_arms([(0, str(fact), 0, True, False) for fact in range(10)])
    never = (rows["arm"] == "b") & (rows["fact_id"].isin(["0", "1"])) & (rows["phase"] == "edited")
    rows.loc[never, "success"] = False
    assert paired(rows, "a", "b", "retention_edited")[0] == pytest.approx(2 * 0.5**8)


def test_drawn_permutations_agree_with_all_of_them() -> None:
    """Twenty facts, more than are counted out: the sum of signs is binomial, which gives the exact p."""
    fates = [(True, False)] * 15 + [(False, True)] * 5
    outcomes = [(0, str(place), wording, *fate) for place, fate in enumerate(fates) for wording in range(2)]
    rows = two_arms(outcomes, kind="paraphrase")
    found = paired(rows, "a", "b", "retention_paraphrase")
    assert found[0] == pytest.approx(2 * binom.cdf(5, 20, 0.5), abs=0.008)
    assert paired(rows.iloc[::-1], "a", "b", "retention_paraphrase") == found


def test_without_a_difference_five_percent_or_fewer_are_significant() -> None:
    generator = np.random.default_rng(8)
    index = pd.MultiIndex.from_product([range(3), ["edited"], map(str, range(12)), ["prompt"], [0]], names=ASKED)
    studies, significant = 600, 0
    for _ in range(studies):
        kept = generator.random((2, 3, 12)) < generator.random(12)
        first, second = (pd.DataFrame({"hits": arm.ravel() * 1, "asked": 1}, index=index) for arm in kept)
        p, _ = compare(first, second, generator=generator)
        assert p is not None
        significant += p <= 0.05
    assert significant / studies <= 0.07  # 5% and what 600 studies may add to it


def test_an_isolated_arm_is_compared_through_all_of_its_models() -> None:
    """Six facts that b keeps and of a's eight models all but the first lose: p by hand is 2 of 64 sign patterns."""
    facts = [str(fact) for fact in range(6)]
    rows = two_arms([(0, fact, 0, True, True) for fact in facts])
    isolated, other = rows[rows["arm"] == "a"], rows[rows["arm"] == "b"]
    lost = isolated.assign(success=isolated["phase"] == "edited")
    copies = [isolated, *(lost.assign(copy=copy) for copy in range(1, 8))]
    found = paired(pd.concat([*copies, other]), "a", "b", "retention_edited")
    assert found == (pytest.approx(2 / 64), "permutation of facts")
    single = [part.assign(copy=place) for place, (_, part) in enumerate(isolated.groupby("fact_id"))]
    assert paired(pd.concat([*single, other]), "a", "b", "retention_edited") == (1.0, "McNemar, exact")


def test_the_larger_of_both_p_is_reported() -> None:
    rows = two_arms([(0, str(fact), 0, True, False) for fact in range(10)])
    arms = [hits_among(outcomes(rows[rows["arm"] == arm]), rate_named("retention_edited")) for arm in "ab"]
    for bootstrap in (1e-9, 0.4):
        p, test = compare(*arms, bootstrap=bootstrap, generator=np.random.default_rng(0))
        assert p == pytest.approx(max(bootstrap, 2 * 0.5**10)) and test == "larger of McNemar, exact, and bootstrap"


def test_nothing_in_common_has_no_p() -> None:
    rows = two_arms([(0, "x", 0, True, False)])
    apart = rows[(rows["arm"] == "a") | (rows["phase"] == "edited")]
    assert paired(apart, "a", "b", "retention_edited") == (None, "")
    same = two_arms([(0, str(fact), 0, True, True) for fact in range(4)])
    assert paired(same, "a", "b", "retention_edited")[0] == 1.0


def test_holms_correction() -> None:
    """Reference: worked by hand. Ordered 0.01, 0.03, 0.04 times 3, 2, 1, and never less than the one before."""
    assert holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None]) == [None]
