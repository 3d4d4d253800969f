"""Shares of the loss: against the definition by orders, what must add up, and forecasts counted by hand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest

from indelible.errors import DataError
from indelible.why.shares import LABELS, MASKS, mask_forecast, shares

GROUPS = ("below", "projections", "beside", "above", "head")
Subset = frozenset[str]


def subsets(groups: Sequence[str]) -> list[Subset]:
    return [frozenset(chosen) for size in range(len(groups) + 1) for chosen in combinations(groups, size)]


def mixtures(
    groups: Sequence[str],
    success: Callable[[str, Subset], bool],
    log_prob: Callable[[str, Subset], float] = lambda fact, tuned: 0.0,
    facts: Collection[str] = ("a",),
    fact_set: str = "edited",
    seed: int = 0,
    arm: str = "memit",
) -> pd.DataFrame:
    """Rows of all mixtures, from what each fact does in each."""
    return pd.DataFrame(
        [
            (arm, seed, fact_set, fact, "+".join(sorted(tuned)) or "none", success(fact, tuned), log_prob(fact, tuned))
            for fact in facts
            for tuned in subsets(groups)
        ],
        columns=["arm", "seed", "fact_set", "fact_id", "mixture", "success", "log_prob"],
    )


def random_game(groups: Sequence[str], facts: int, seed: int, keep: float = 0.6) -> pd.DataFrame:
    """Facts that succeed at random in every mixture, and in most cases in the edited model."""
    generator = np.random.default_rng(seed)
    values = {
        (f"f{number}", tuned): (
            generator.random() < (0.8 if not tuned else keep),
            float(generator.normal() - 2),
        )
        for number in range(facts)
        for tuned in subsets(groups)
    }
    names = [f"f{number}" for number in range(facts)]
    return mixtures(
        groups, lambda fact, tuned: values[fact, tuned][0], lambda fact, tuned: values[fact, tuned][1], names, seed=seed
    )


def by_orders(rows: pd.DataFrame, groups: Sequence[str], column: str) -> dict[str, float]:
    """Shapley's definition: a group's contribution to what is lost, averaged over all orders, then over facts."""
    table = {
        (row.fact_id, frozenset() if row.mixture == "none" else frozenset(row.mixture.split("+"))): row
        for row in rows.itertuples()
    }
    counted = sorted({fact for fact, tuned in table if not tuned and table[fact, tuned].success})
    found = dict.fromkeys(groups, 0.0)
    orders = list(permutations(groups))
    for fact in counted:
        for order in orders:
            moved: Subset = frozenset()
            for group in order:
                before = float(getattr(table[fact, moved], column))
                moved |= {group}
                found[group] += (before - float(getattr(table[fact, moved], column))) / len(orders) / len(counted)
    return found


@pytest.mark.parametrize("of", ["success", "log_prob"])
def test_shares_are_the_average_over_all_orders(of: str) -> None:
    rows = random_game(GROUPS, 9, 3)
    found = shares(rows, of=of, draws=10).set_index("group")["share"]  # type: ignore[arg-type]
    expected = by_orders(rows, GROUPS, of)
    assert list(found.index) == list(GROUPS)
    assert found.to_dict() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("groups", [GROUPS, GROUPS[1:2], (*GROUPS[:4], "tied")])
def test_shares_sum_to_what_was_lost(groups: tuple[str, ...]) -> None:
    rows = pd.concat([random_game(groups, 12, 1), random_game(groups, 7, 2)])
    table = rows.pivot(index=["seed", "fact_id"], columns="mixture", values="success")
    started = table[table["none"].astype(bool)]
    loss = 1 - started["+".join(sorted(groups))].mean()
    found = shares(rows, draws=50)
    assert found["share"].sum() == pytest.approx(loss, abs=1e-12)
    assert found["of_loss"].sum() == pytest.approx(1)
    assert set(found["facts"]) == {len(started)}
    assert set(found["seeds"]) == {2}
    assert (found["low"] <= found["share"]).all() and (found["share"] <= found["high"]).all()


def test_a_group_that_breaks_facts_alone_bears_all_of_it_and_partners_share_alike() -> None:
    alone = shares(mixtures(GROUPS, lambda fact, tuned: "above" not in tuned), draws=10).set_index("group")["share"]
    assert alone.to_dict() == {group: float(group == "above") for group in GROUPS}
    both = shares(mixtures(GROUPS, lambda fact, tuned: not {"below", "head"} <= tuned), draws=10)
    assert both.set_index("group")["share"].to_dict() == {
        group: 0.5 if group in ("below", "head") else 0.0 for group in GROUPS
    }


def test_a_group_that_brings_facts_back_has_a_share_below_zero() -> None:
    rows = mixtures(("below", "above"), lambda fact, tuned: "below" not in tuned or "above" in tuned)
    found = shares(rows, draws=10).set_index("group")
    assert found["share"].to_dict() == {"below": 0.5, "above": -0.5}
    assert found["of_loss"].isna().all()


def test_a_group_that_did_not_change_in_one_seed_has_no_part_in_it() -> None:
    first = mixtures(("below", "above"), lambda fact, tuned: not tuned, facts=("a", "b"), seed=0)
    second = mixtures(("below",), lambda fact, tuned: not tuned, facts=("a", "b"), seed=1)
    found = shares(pd.concat([first, second]), draws=100).set_index("group")["share"]
    assert found.to_dict() == {"below": 0.75, "above": 0.25}


def test_facts_that_had_not_succeeded_do_not_count() -> None:
    rows = mixtures(("below", "above"), lambda fact, tuned: fact != "b" and "above" not in tuned, facts=("a", "b"))
    found = shares(rows, draws=10)
    assert set(found["facts"]) == {1}
    assert found.set_index("group")["share"].to_dict() == {"below": 0.0, "above": 1.0}
    none = shares(mixtures(("below", "above"), lambda fact, tuned: False), draws=10)
    assert set(none["facts"]) == {0} and none["share"].isna().all() and none["low"].isna().all()


def test_arms_and_fact_sets_stay_apart() -> None:
    rows = pd.concat(
        [
            mixtures(("below", "above"), lambda fact, tuned: "above" not in tuned, arm="one"),
            mixtures(("below", "above"), lambda fact, tuned: "below" not in tuned, arm="one", fact_set="intrinsic"),
            mixtures(("above",), lambda fact, tuned: True, arm="two"),
        ]
    )
    found = shares(rows, draws=10).set_index(["arm", "fact_set", "group"])["share"].to_dict()
    assert found == {
        ("one", "edited", "below"): 0.0,
        ("one", "edited", "above"): 1.0,
        ("one", "intrinsic", "below"): 1.0,
        ("one", "intrinsic", "above"): 0.0,
        ("two", "edited", "above"): 0.0,
    }


def test_intervals_cover_what_is_redrawn() -> None:
    """Half of 40 facts are lost through one group: the share is their rate, with the binomial's own spread."""
    rows = mixtures(
        ("below", "above"),
        lambda fact, tuned: int(fact) % 2 == 0 or "above" not in tuned,
        facts=[str(n) for n in range(40)],
    )
    line = shares(rows, draws=20_000).set_index("group").loc["above"]
    deviation = (0.25 / 40) ** 0.5
    assert line["share"] == 0.5
    assert line["low"] == pytest.approx(0.5 - 1.96 * deviation, abs=0.03)
    assert line["high"] == pytest.approx(0.5 + 1.96 * deviation, abs=0.03)


def test_forecasts_are_the_retention_of_the_mixture_with_the_frozen_groups_edited() -> None:
    harm = {"a": {"projections"}, "b": {"projections", "beside"}, "c": {"above"}, "d": {"below"}}
    rows = mixtures(GROUPS, lambda fact, tuned: not harm[fact] <= tuned, facts=tuple(harm))
    found = mask_forecast(rows, draws=200).set_index("mask")
    assert found["retention_edited"].to_dict() == {
        "none": 0.0,
        "edited-weights": 0.5,
        "only-edited-weights": 0.75,
        "edited-layers": 0.5,
        "only-edited": 0.5,
        "up-to-edited": 0.75,
        "from-edited": 0.75,
        "head": 0.0,
    }
    assert found["gain"].equals(found["retention_edited"].rename("gain"))
    assert (found["gain_low"] <= found["gain"]).all() and (found["gain"] <= found["gain_high"]).all()


def test_forecasts_leave_out_masks_that_freeze_nothing_or_everything_that_changed() -> None:
    only_projections = mask_forecast(mixtures(("projections",), lambda fact, tuned: not tuned), draws=10)
    assert set(only_projections["mask"]) == {"none"}
    tied = mask_forecast(mixtures(("below", "tied"), lambda fact, tuned: not tuned), draws=10)
    assert set(tied["mask"]) == {"none", "from-edited", "head"}
    nowhere = mask_forecast(mixtures(("embeddings", "layers", "head"), lambda fact, tuned: not tuned), draws=10)
    assert set(nowhere["mask"]) == {"none", "head"}
    assert mask_forecast(mixtures(GROUPS, lambda fact, tuned: False), draws=10).empty


def test_every_group_of_a_mask_is_known() -> None:
    assert set().union(*MASKS.values()) <= LABELS.keys()


def test_tables_that_are_not_whole_are_refused() -> None:
    rows = random_game(GROUPS, 3, 0)
    with pytest.raises(DataError, match="missing for some facts"):
        shares(rows.iloc[:-1])
    with pytest.raises(DataError, match="missing for some facts"):
        shares(rows[rows["mixture"] != "above"])
    with pytest.raises(DataError, match="stands twice"):
        shares(pd.concat([rows, rows.iloc[:1]]))
    with pytest.raises(DataError, match="log_prob"):
        mask_forecast(rows.drop(columns="log_prob"))
    with pytest.raises(DataError, match="Unknown parameter group 'abov'"):
        shares(rows.replace({"mixture": {"above": "abov"}}))


def test_the_order_of_rows_does_not_matter() -> None:
    rows = random_game(GROUPS, 6, 5)
    pd.testing.assert_frame_equal(
        shares(rows, draws=100), shares(rows.sample(frac=1, random_state=1).reset_index(drop=True), draws=100)
    )
