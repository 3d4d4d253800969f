"""Joint draws of many rates: paired where arms share facts, together in seeds, and the same whatever stands beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from indelible.errors import UnknownNameError
from indelible.numbers.answers import Answers, pooled
from indelible.numbers.arms import pairs_of_arms, pairs_with_control
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import MEASURES, RateKey
from indelible.numbers.replicates import Replicates
from indelible.numbers.summary import contrasts_table, effects_table
from simulated import SimulatedArm, Tables, isolated, simulate
from simulated_counts import joint_of, simulate_counts


@pytest.fixture(scope="module")
def study() -> Tables:
    return simulate(seeds=(0, 1, 2), generator=np.random.default_rng(0))


@pytest.fixture(scope="module")
def joint(study: Tables) -> Replicates:
    return Answers(study[0], draws=4_000).replicates


def gap(arm: str, sign: float = 1.0) -> dict[RateKey, float]:
    return MEASURES.get("gap").of(arm, sign)


def test_values_are_the_pooled_rates(study: Tables, joint: Replicates) -> None:
    answers = Answers(study[0])
    for arm in ("memit", "ft", "control"):
        for name in ("retention_edited", "retention_intrinsic", "retention_paraphrase"):
            assert joint.of(arm, MEASURES.get(name)).value == pooled(answers.counts(arm, name))
    counted = [answers.counts("memit", f"retention_{name}") for name in ("intrinsic", "edited")]
    effect, rates = joint.estimate(gap("memit")), [pooled(count) or 0 for count in counted]
    assert effect.value == pytest.approx(rates[0] - rates[1])
    asked = [count[count["asked"] > 0].index.get_level_values("fact_id") for count in counted if count is not None]
    assert (effect.facts, effect.seeds) == (sum(map(len, map(set, asked))), 3), "each fact once, whatever its seeds"


def at(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def width(found: Estimate) -> float:
    assert found.low is not None and found.high is not None
    return found.high - found.low


def counts_of(**rates: Sequence[tuple[int, int]]) -> Replicates:
    """Rates of one arm, each with hits and asked per seed: one question a fact, and no fact in two seeds."""
    counts = {}
    for measure, seeds in rates.items():
        index = [(seed, 0, f"{seed}-{fact}") for seed, (_, asked) in enumerate(seeds) for fact in range(asked)]
        hits = [int(fact < kept) for kept, asked in seeds for fact in range(asked)]
        counts["memit", measure] = pd.DataFrame(
            {"hits": hits, "asked": 1}, index=pd.MultiIndex.from_tuples(index, names=["seed", "copy", "fact_id"])
        )
    return joint_of(counts, draws=20_000)


def test_the_interval_of_a_gap_is_that_of_two_independent_shares() -> None:
    found = counts_of(retention_intrinsic=[(320, 400)], retention_edited=[(120, 200)]).estimate(gap("memit"))
    assert found.value == pytest.approx(0.2)
    half_width = 1.96 * np.sqrt(0.8 * 0.2 / 400 + 0.6 * 0.4 / 200)
    assert (found.low, found.high) == pytest.approx((0.2 - half_width, 0.2 + half_width), abs=0.004)


def test_both_sets_follow_the_same_draw_of_seeds() -> None:
    """When a seed lifts both sets alike the gap is certain but for facts; independent seeds would make it vary."""
    seeds = [(2, 30), (28, 30), (28, 30)]
    joint = counts_of(retention_intrinsic=seeds, retention_edited=seeds)
    together, alone = joint.estimate(gap("memit")), joint.estimate({("memit", "retention_edited"): 1.0})
    assert width(together) < 0.5 * width(alone)


def test_seeds_are_aligned_by_fact() -> None:
    index = pd.MultiIndex.from_tuples(
        [(0, 0, "b"), (0, 0, "c"), (1, 0, "c"), (1, 0, "a")], names=["seed", "copy", "fact_id"]
    )
    key = ("memit", "retention_edited")
    counts = {key: pd.DataFrame({"hits": [1, 2, 0, 1], "asked": [1, 3, 3, 1]}, index=index)}
    (sample,) = joint_of(counts, draws=100).terms([key]) or []
    assert (sample.hits.tolist(), sample.asked.tolist()) == ([[0, 1, 2], [1, 0, 0]], [[0, 1, 3], [1, 0, 3]])


def test_a_batch_arm_is_drawn_alike_beside_an_isolated_one(study: Tables) -> None:
    rows = study[0][study[0]["arm"].isin(["memit", "ft"])]
    mixed, apart = Answers(isolated(rows, "ft"), draws=500).replicates, Answers(rows, draws=500).replicates
    assert [len(sample.by_model.hits) for sample in mixed.terms(gap("ft")) or [] if sample.by_model] == [72, 72]
    assert mixed.estimate(gap("memit")) == apart.estimate(gap("memit"))
    assert mixed.estimate(gap("ft")) != apart.estimate(gap("ft"))


@pytest.mark.parametrize(("hits", "asked"), [(2, 4), (3, 4), (1, 2), (18, 24)])
def test_copies_that_ask_a_fact_each_have_the_interval_of_one_model_that_asks_them_all(hits: int, asked: int) -> None:
    key = ("memit", "retention_edited")
    found = []
    for apart in (False, True):
        places = range(asked)
        index = pd.MultiIndex.from_tuples(
            [(0, place if apart else 0, str(place)) for place in places], names=["seed", "copy", "fact_id"]
        )
        counts = pd.DataFrame({"hits": [int(place < hits) for place in places], "asked": 1}, index=index)
        found.append(joint_of({key: counts}, draws=2_000).estimate({key: 1.0}))
    batch, isolated_ = found
    assert (isolated_.low, isolated_.high) == pytest.approx((batch.low, batch.high), abs=1e-6)


def test_facts_that_fare_alike_in_two_arms_narrow_their_difference() -> None:
    truth = {"a": (0.6, 0.8), "b": (0.6, 0.8)}
    widths = {}
    for alike in (0.0, 0.95):
        counts = simulate_counts(truth, seeds=3, n_edits=100, alike=alike, generator=np.random.default_rng(4))
        difference = {("a", "retention_edited"): 1.0, ("b", "retention_edited"): -1.0}
        widths[alike] = width(joint_of(counts, draws=2_000).estimate(difference))
    assert widths[0.95] < 0.5 * widths[0.0]


@pytest.mark.parametrize(
    "weights",
    [
        gap("memit"),
        gap("memit + 3 paraphrases"),
        {("ft", "retention_edited"): 1, ("memit", "retention_edited"): -1},
        gap("memit") | gap("ft", -1),
    ],
)
def test_p_is_at_most_five_percent_exactly_where_the_interval_excludes_zero(
    weights: dict[RateKey, float], joint: Replicates
) -> None:
    effect = joint.estimate(weights)
    assert effect.low is not None and effect.high is not None and effect.p is not None
    assert (effect.p <= 0.05) is (effect.side != 0)
    mirrored = joint.estimate({key: -weight for key, weight in weights.items()})
    assert (mirrored.low, mirrored.high, mirrored.p) == (-effect.high, -effect.low, effect.p)


def test_arms_with_different_seeds_are_compared_over_the_seeds_they_share(
    study: Tables,
) -> None:
    rows, _ = study
    difference = {("ft", "retention_edited"): 1.0, ("memit", "retention_edited"): -1.0}
    without = rows[~((rows["arm"] == "ft") & (rows["seed"] == 2))]
    uneven = Answers(without, draws=500).replicates.estimate(difference)
    even = Answers(rows[rows["seed"] != 2], draws=500).replicates.estimate(difference)
    assert asdict(uneven) == pytest.approx(asdict(even), rel=1e-12)
    assert uneven.seeds == 2


def test_rates_that_were_not_measured_give_no_effect(joint: Replicates) -> None:
    for arm in ("control", "ft, high rate"):
        assert joint.estimate(gap(arm)) == Estimate()
    with pytest.raises(UnknownNameError, match="Did you mean 'locality'"):
        joint.estimate({("memit", "localty"): 1.0})
    assert Answers(pd.DataFrame(columns=["arm"])).replicates.estimate(gap("memit")) == Estimate()


def test_one_fact_has_a_rate_and_no_interval() -> None:
    index = pd.MultiIndex.from_tuples([(0, 0, "a"), (0, 0, "b")], names=["seed", "copy", "fact_id"])
    key = ("memit", "retention_edited")
    counts = {key: pd.DataFrame({"hits": [1, 0], "asked": [1, 0]}, index=index)}
    assert joint_of(counts, draws=100).estimate({key: 1.0}) == Estimate(1.0, facts=1, seeds=1)
    beside = counts_of(retention_intrinsic=[(9, 9)], retention_edited=[(1, 1)]).estimate(gap("memit"))
    assert beside == Estimate(0.0, facts=10, seeds=1)


def test_the_table_of_effects_compares_arms_that_differ_in_one_thing(
    study: Tables,
) -> None:
    rows, runs = study
    assert {(arm.name, other.name) for arm, other, _ in pairs_of_arms(runs)} == {
        ("memit + 3 paraphrases", "memit"),
        ("memit, edited layers frozen", "memit"),
        ("ft", "memit"),
    }  # an arm that failed has nothing to compare
    assert {control for _, control in pairs_with_control(runs)} == {"control"}
    table = effects_table(Answers(rows, draws=1_000), runs)
    assert not table.duplicated(["arm", "versus", "measure"]).any()
    assert table["value"].notna().all()
    alone = table[table["versus"].isna()].set_index(["arm", "measure"])
    flipped, kept = alone.loc[("memit", "flip_ratio")], alone.loc[("memit", "retention_edited")]
    assert (flipped["value"], flipped["low"], flipped["high"]) == pytest.approx(
        (1 - kept["value"], 1 - kept["high"], 1 - kept["low"])
    )
    assert alone.loc[("memit", "downstream_change"), "value"] == pytest.approx(2.871 - 3.412)
    against = table[table["versus"] == "memit"].set_index(["arm", "measure"])
    line = against.loc[("memit + 3 paraphrases", "retention_edited")]
    more = alone.loc[("memit + 3 paraphrases", "retention_edited"), "value"]
    assert line["value"] == pytest.approx(more - kept["value"])
    assert line["test"] == "larger of permutation of facts, and bootstrap" and line["p"] < 0.05 and line["low"] > 0
    assert {"gap", "gap_base", "matched_gap", "retention_neighbour", "retention_paraphrase"} <= set(
        against.loc["ft"].index
    )
    controlled = table[table["versus"] == "control"]
    assert set(controlled["measure"]) == {"retention_intrinsic"}
    assert "ft, high rate" not in set(controlled["arm"])


def test_what_a_factor_changed_is_the_mean_over_the_pairs_of_an_editor_that_differ_in_it_alone() -> None:
    arms = [
        SimulatedArm(
            f"{editor}, {objective}, {mask}",
            editor=editor,
            objective=objective,
            mask=mask,
            retention_edited=kept + 0.3 * (mask == "head"),
        )
        for editor, objective, kept in (("memit", "text", 0.3), ("memit", "reason", 0.6), ("ft", "text", 0.6))
        for mask in ("none", "head")
    ]
    rows, runs = simulate([*arms, SimulatedArm("control", editor="none")], seeds=(0, 1), generator=at(3))
    keys = ["editor", "factor", "level", "against", "measure"]
    table = contrasts_table(Answers(rows, draws=400), runs).set_index(keys)
    line = table.loc[("memit", "mask", "head", "none", "retention_edited")]
    effects = effects_table(Answers(rows, draws=400), runs).set_index(["arm", "versus", "measure"])
    pairs = [(f"memit, {one}, head", f"memit, {one}, none", "retention_edited") for one in ("text", "reason")]
    assert line["value"] == pytest.approx(np.mean([effects.loc[pair, "value"] for pair in pairs]))
    assert line["value"] == pytest.approx(0.3, abs=0.15)
    assert line["low"] > 0 and line["pairs"] == 2 and line["p"] < 0.05
    assert {(editor, factor, measure) for editor, factor, _, _, measure in table.index} == {
        (*about, measure)
        for about in (("memit", "mask"), ("memit", "objective"), ("", "editor"))
        for measure in ("excess_loss", "retention_edited", "retention_intrinsic", "lead")
    }, "no mean over editors, and none of ft's one pair"
    of_one_pair = runs["arm"].isin(["memit, text, none", "memit, text, head", "control"])
    assert contrasts_table(Answers(rows, draws=400), runs[of_one_pair]).empty


def test_the_p_of_a_difference_between_arms_knows_that_runs_vary() -> None:
    """Two arms alike whose runs scatter: by the paired test alone, half of these studies are significant at 5%
    where the interval of the difference has zero in it."""
    arms = [SimulatedArm(name, editor=name, spread_between_seeds=0.15) for name in ("memit", "ft")]
    found = []
    for study in range(8):
        rows, runs = simulate(
            arms,
            seeds=(0, 1, 2),
            n_edits=80,
            n_intrinsic=2,
            wordings=0,
            neighbours=0,
            steps=(10,),
            generator=np.random.default_rng(study),
        )
        table = effects_table(Answers(rows, draws=400), runs).set_index(["arm", "versus", "measure"])
        found.append(table.loc[("ft", "memit", "retention_edited")])
    assert sum(bool(line["low"] < 0 < line["high"]) for line in found) >= 5
    assert all(bool(line["p"] <= 0.05) <= bool(line["low"] > 0 or line["high"] < 0) for line in found)
