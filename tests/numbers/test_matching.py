"""The matched gap: who is matched with whom, what is left out, and that balance is what it says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from indelible.numbers.answers import Answers
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import MEASURES
from simulated import answer_row, simulate_confidence

DRAWS = 500
MATCHED_GAP = MEASURES.get("matched_gap")


def arm(facts: list[tuple[str, str, str, float, bool]], seed: int = 0, name: str = "memit") -> pd.DataFrame:
    """Rows from (set, fact, relation, probability in edited, kept), all of which had succeeded in edited."""
    return pd.DataFrame(
        answer_row(fact_set, fact, phase, success, arm=name, seed=seed, relation=relation, log_prob=np.log(probability))
        for fact_set, fact, relation, probability, kept in facts
        for phase, success in (("edited", True), ("tuned", kept))
    )


WORKED = [
    ("edited", "a", "capital", 0.50, False),
    ("edited", "b", "capital", 0.90, True),
    ("edited", "c", "language", 0.50, True),
    ("intrinsic", "p", "capital", 0.51, True),
    ("intrinsic", "q", "capital", 0.88, True),
    ("intrinsic", "r", "currency", 0.50, False),
    ("intrinsic", "s", "capital", 0.01, False),
]


def matched(rows: pd.DataFrame) -> tuple[Answers, list[list[str]]]:
    """The answers, and which edits and which intrinsic facts stand in a match."""
    answers = Answers(rows, draws=DRAWS)
    counts = [answers.counts("memit", f"matched_{name}") for name in ("edited", "intrinsic")]
    return answers, [[] if count is None else list(count.index.get_level_values("fact_id")) for count in counts]


def gap_of(answers: Answers, *arms: str) -> Estimate:
    """The mean of the arms' matched gaps."""
    weights = {key: weight / len(arms) for arm in arms for key, weight in MATCHED_GAP.of(arm).items()}
    return answers.replicates.estimate(weights)


def test_matches_are_by_relation_then_by_nearness() -> None:
    """By hand: a with p, b with q, c (no language among the intrinsic) with r and p, which are as good as equally near.

    Intrinsic facts so matched kept (1 + 1 + ½) of 3, edits 2 of 3. The fact s is nowhere near.
    """
    answers, used = matched(arm(WORKED))
    assert used == [["a", "b", "c"], ["p", "q", "r"]]
    shares = answers.counts("memit", "matched_intrinsic")
    assert shares is not None and shares["asked"].to_list() == [1.5, 1.0, 0.5]
    assert gap_of(answers, "memit").value == pytest.approx(2.5 / 3 - 2 / 3)


def test_edits_that_no_intrinsic_fact_is_near_are_left_out() -> None:
    answers, used = matched(arm([*WORKED, ("edited", "d", "capital", 0.9999, False)]))
    assert used[0] == ["a", "b", "c"]
    assert gap_of(answers, "memit").value == pytest.approx(2.5 / 3 - 2 / 3)


def test_where_no_fact_of_the_relation_is_near_one_of_another_is() -> None:
    """A model that holds every language loosely has none to set beside a firm edit; currencies serve."""
    firm = [("edited", "d", "language", 0.5, True), ("intrinsic", "l", "language", 0.01, True)]
    _, used = matched(arm([*WORKED[:2], *WORKED[3:], *firm]))
    assert used == [["a", "b", "d"], ["p", "q", "r"]]


def test_seeds_are_matched_by_themselves() -> None:
    other = [
        (fact_set, f"{fact}2", relation, probability**3, kept) for fact_set, fact, relation, probability, kept in WORKED
    ]
    both, _ = matched(pd.concat([arm(WORKED), arm(other, seed=1)]))
    assert gap_of(both, "memit").seeds == 2
    shifted = arm(other, seed=1)
    shifted.loc[shifted["fact_set"] == "edited", "log_prob"] = np.log(0.99999)
    assert matched(pd.concat([arm(WORKED), shifted]))[1][0] == ["a", "b", "c"]


def test_what_failed_in_edited_or_was_not_asked_again_has_no_part() -> None:
    rows = arm(WORKED)
    failed = (rows["fact_id"] == "a") & (rows["phase"] == "edited")
    rows.loc[failed, "success"] = False
    missing = rows[~((rows["fact_id"] == "b") & (rows["phase"] == "tuned"))]
    assert matched(missing)[1][0] == ["c"]


def test_matching_balances_confidence_and_does_not_depend_on_the_order_of_rows() -> None:
    """Edits were held less firmly than intrinsic facts by 1.5 in log-odds; those matched, about as firmly."""
    rows, _ = simulate_confidence(seeds=3, generator=np.random.default_rng(0))
    answers, _ = matched(rows)
    held = rows[rows["phase"] == "edited"].set_index(["fact_set", "seed", "copy", "fact_id"])["log_prob"]
    spread = held.std()
    assert (held["edited"].mean() - held["intrinsic"].mean()) / spread < -0.8
    means = []
    for name in ("edited", "intrinsic"):
        count = answers.counts("memit", f"matched_{name}")
        assert count is not None
        means.append(np.average(held[name].loc[count.index], weights=count["asked"]))
    assert abs(means[0] - means[1]) / spread < 0.1
    assert gap_of(matched(rows.sample(frac=1, random_state=1))[0], "memit") == gap_of(answers, "memit")


def test_means_over_arms_draw_shared_facts_together() -> None:
    rows, _ = simulate_confidence(seeds=3, generator=np.random.default_rng(0))
    answers = Answers(pd.concat([rows, rows.assign(arm="twin")]), draws=4_000)
    alone, mean = gap_of(answers, "memit"), gap_of(answers, "memit", "twin")
    assert alone == answers.replicates.of("memit", MATCHED_GAP)
    assert (mean.value, mean.facts) == (pytest.approx(alone.value), alone.facts)
    assert None not in (mean.low, mean.high, alone.low, alone.high)
    # The twin knows nothing that the first arm did not: the mean is no surer than one arm.
    assert (mean.high or 0) - (mean.low or 0) > 0.9 * ((alone.high or 0) - (alone.low or 0))


def test_without_edits_or_without_matches_there_is_no_matched_gap() -> None:
    for rows in (
        arm(WORKED).assign(editor="none"),
        arm([line for line in WORKED if line[0] == "edited"]),
        arm([line for line in WORKED if line[0] == "intrinsic"]),
        arm(WORKED).iloc[:0],
    ):
        assert gap_of(Answers(rows), "memit") == Estimate()
