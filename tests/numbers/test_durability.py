"""The durability score: against a table by hand, against another way to compute it, and its interval against truth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

from indelible.claims.claim import Claim, Comparison
from indelible.claims.judge import judge
from indelible.numbers.alike.durability import passage_weights
from indelible.numbers.answers import Answers
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import FACTORS, MEASURES, rate_named
from indelible.numbers.summary import effects_table, summarise
from simulated import Row, answer_row
from simulated_counts import joint_of

Path = Mapping[int, tuple[float, str]]
"""Step -> held-out loss, and a digit for each fact: whether it was answered ("-": not asked); step 0 before tuning."""
SETTINGS = {"objective": "text", "tuner": "full", "paraphrases": 0, "mask": "none", "protect": "none"}


def study(
    arms: Mapping[str, Mapping[int, Path]], kind: str = "prompt", **settings: Mapping[str, object]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tidy rows and the run table of arms, each with a path for each seed; ``settings`` are what an arm is besides."""
    rows: list[Row] = []
    runs: list[Row] = []
    for arm, seeds in arms.items():
        about = {"arm": arm, "editor": "memit", **SETTINGS, **settings.get(arm, {})}
        for seed, path in seeds.items():
            last = max(path)
            for step, (_, marks) in path.items():
                phase = "edited" if step == 0 else "tuned" if step == last else "tuning"
                for fact, mark in enumerate(marks):
                    if mark != "-":
                        more = about | {"seed": seed, "step": step, "kind": kind}
                        rows.append(answer_row("edited", f"{fact}", phase, mark == "1", **more))
            figures = {step: loss for step, (loss, _) in path.items()}
            downstream = {"downstream_before": path[0][0], "downstream_after": path[last][0], "reached": None}
            runs.append(
                about
                | {"seed": seed, "figure": "loss", "better": "lower", "status": "done", "seconds": 1.0, **downstream}
                | {"figures": json.dumps({0: figures})}
            )
    return pd.DataFrame(rows), pd.DataFrame(runs)


def durability(rows: pd.DataFrame, runs: pd.DataFrame, arm: str = "a", measure: str = "durability") -> float | None:
    return Answers(rows, runs, draws=50).replicates.of(arm, MEASURES.get(measure)).value


def test_a_table_by_hand() -> None:
    straight: Path = {0: (3.0, "1111"), 10: (2.0, "1110"), 20: (1.0, "1000")}
    # Over losses 3 to 2 from 1 to 3/4, and 2 to 1 from 3/4 to 1/4.
    assert durability(*study({"a": {0: straight}})) == pytest.approx((0.875 + 0.5) / 2)
    # What had not succeeded before tuning is not asked about.
    known: Path = {0: (3.0, "1110"), 20: (1.0, "1001")}
    assert durability(*study({"a": {0: known}})) == pytest.approx((1 + 1 / 3) / 2)


def test_a_loss_that_goes_up_reaches_nothing_more_and_what_it_cost_counts_from_the_next_best_on() -> None:
    turning: Path = {
        0: (3.0, "1" * 10),
        1: (2.0, "1" * 6 + "0" * 4),
        2: (2.5, "1" * 4 + "0" * 6),
        3: (1.0, "11" + "0" * 8),
    }
    # 3 to 2: from 1 to 0.6. 2 to 1 is passed between the last two, a third of the way from 2.5 to 1: from 1/3 to 0.2.
    assert durability(*study({"a": {0: turning}})) == pytest.approx((0.8 + (1 / 3 + 0.2) / 2) / 2)
    overfitted = {**turning, 3: (2.6, "0" * 10)}
    assert durability(*study({"a": {0: overfitted}})) == pytest.approx(0.8)


def test_arms_are_held_against_each_other_over_what_all_reached_from_the_best_start_on() -> None:
    far: Path = {0: (3.0, "1111"), 10: (1.0, "0000")}
    near: Path = {0: (3.0, "1111"), 10: (2.0, "1100")}
    damaged: Path = {0: (4.0, "1111"), 10: (2.0, "1100")}
    tables = study({"a": {0: far}, "b": {0: near}, "c": {0: damaged}})
    # From 3 to 2: the first arm goes from 1 to 1/2, as the second does, and learns on; the third starts at 3/4.
    assert [durability(*tables, arm) for arm in "abc"] == pytest.approx([0.75, 0.75, 0.625])
    alone = study({"a": {0: far}})
    assert durability(*alone) == pytest.approx(0.5)
    other = study({"a": {0: far}, "b": {0: near}}, b={"objective": "reason"})
    assert durability(*other) == pytest.approx(0.5), "not tuned alike"
    control = study({"a": {0: far}, "b": {0: near}}, b={"editor": "none"})
    assert durability(*control) == pytest.approx(0.5) and durability(*control, "b") is None


def test_what_has_no_score() -> None:
    far: Path = {0: (3.0, "11"), 10: (2.0, "10"), 20: (1.0, "00")}
    idle: Path = {0: (3.0, "11"), 10: (2.9, "11"), 20: (2.8, "11")}
    tables = study({"a": {0: far}, "b": {0: idle}})
    assert durability(*tables) == pytest.approx(0.5), "who hardly learned shortens no range"
    assert durability(*tables, "b") is None
    coarse: Path = {0: (3.0, "11"), 20: (1.0, "00")}
    tables = study({"a": {0: far}, "b": {0: coarse}, "c": {0: {0: (3.0, "11"), 10: (1.0, "00")}}})
    assert durability(*tables, "b") is None, "an exam fewer would put it higher"
    assert durability(*tables, "c") == pytest.approx(0.5), "it ended with the first exam of the others"
    worse: Path = {0: (3.0, "11"), 10: (3.5, "10")}
    assert durability(*study({"a": {0: worse}})) is None
    rows, runs = study({"a": {0: far}})
    assert durability(rows, runs.drop(columns="figures")) is None
    assert durability(rows, runs.assign(figures=None)) is None
    assert Answers(rows, draws=50).replicates.of("a", MEASURES.get("durability")) == Estimate()


def test_a_figure_that_is_no_number_costs_its_own_model_alone() -> None:
    far: Path = {0: (3.0, "1111"), 10: (2.0, "1110"), 20: (1.0, "1000")}
    broken: Path = {0: (3.0, "1111"), 10: (float("nan"), "1110"), 20: (1.5, "1000")}
    tables = study({"a": {0: far}, "b": {0: broken}})
    with pytest.warns(RuntimeWarning, match="No durability of b: a held-out figure is no number"):
        assert durability(*tables) == durability(*study({"a": {0: far}}))
    with pytest.warns(RuntimeWarning, match="No durability of b"):
        assert durability(*tables, "b") is None


def test_held_out_wordings_are_a_trapezoid_of_the_two_exams_that_ask_them() -> None:
    path: Path = {0: (3.0, "1111"), 10: (1.0, "----"), 20: (2.0, "1000")}
    tables = study({"a": {0: path}}, kind="paraphrase")
    assert durability(*tables, measure="durability_paraphrase") == pytest.approx((1 + 0.25) / 2)
    assert durability(*tables) is None


def test_a_figure_of_which_more_is_better() -> None:
    path: Path = {0: (0.2, "1111"), 10: (0.6, "1100")}
    rows, runs = study({"a": {0: path}})
    assert durability(rows, runs.assign(better="higher", figure="accuracy")) == pytest.approx(0.75)
    assert durability(rows, runs) is None


def random_paths(
    generator: np.random.Generator, arms: Sequence[str], *, seeds: int, facts: int, points: int
) -> dict[str, dict[int, Path]]:
    """Losses that fall and turn back; facts that are lost and sometimes found again."""
    found: dict[str, dict[int, Path]] = {}
    for arm in arms:
        for seed in range(seeds):
            path: dict[int, tuple[float, str]] = {}
            for point in range(points):
                loss = (
                    3 + 0.1 * seed + (0.2 * generator.random() - 0.3 * point + 0.3 * generator.normal()) * (point > 0)
                )
                kept = generator.random(facts) < 1 - 0.15 * point
                path[5 * point] = loss, "".join("1" if one else "0" for one in kept)
            found.setdefault(arm, {})[seed] = path
    return found


def by_brute_force(paths: Mapping[str, Mapping[int, Path]], arm: str, levels: int = 2_000, fine: int = 1_000) -> float:
    """Every fact's success, straight between exams, at the first of many moments that reach each of many losses."""
    totals = []
    for seed in paths[arm]:
        losses = {name: [loss for loss, _ in seeds[seed].values()] for name, seeds in paths.items()}
        start = min(loss[0] for loss in losses.values())
        far = max(start - min(loss) for loss in losses.values())
        shared = [start - min(loss) for loss in losses.values() if start - min(loss) >= far / 2]
        if start - min(losses[arm]) < far / 2:
            continue
        wanted = start - min(shared) * (np.arange(levels) + 0.5) / levels
        steps, own = list(paths[arm][seed]), losses[arm]
        moments = np.linspace(0, steps[-1], fine * steps[-1] + 1)
        best = np.minimum.accumulate(np.interp(moments, steps, own))
        passed_at = moments[np.searchsorted(-best, -wanted)]
        marks = [marks for _, marks in paths[arm][seed].values()]
        for fact, mark in enumerate(marks[0]):
            if mark == "1":
                answers = [float(later[fact]) for later in marks]
                totals.append(float(np.interp(passed_at, steps, answers).mean()))
    return float(np.mean(totals))


def test_another_way_to_compute_it_says_the_same() -> None:
    generator = np.random.default_rng(5)
    for _ in range(3):
        paths = random_paths(generator, ["a", "b", "c"], seeds=2, facts=6, points=4)
        tables = study(paths)
        answers = Answers(*tables, draws=50)
        for arm in paths:
            found = answers.replicates.of(arm, MEASURES.get("durability")).value
            if found is None:
                with pytest.warns(RuntimeWarning):
                    assert np.isnan(by_brute_force(paths, arm))
            else:
                assert found == pytest.approx(by_brute_force(paths, arm), abs=2e-3)


def test_weights_are_of_a_mean_and_those_of_a_steady_fall_are_a_trapezoid() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        utility = np.concatenate([[-0.2], generator.normal(1, 1, 6), [2.5]])
        weights = passage_weights(utility, 0.0, 2.5)
        assert (weights >= 0).all() and weights.sum() == pytest.approx(1)
    utility = np.array([0.0, 0.5, 2.0])
    kept = generator.random(3)
    assert passage_weights(utility, 0.0, 2.0) @ kept == pytest.approx(np.trapezoid(kept, utility) / 2)


def test_each_copy_of_an_isolated_arm_has_its_own_way() -> None:
    rows, runs = study({"a": {0: {0: (3.0, "11"), 10: (2.0, "11"), 20: (1.0, "10")}}})
    runs["figures"] = json.dumps({0: {0: 3.0, 10: 2.0, 20: 1.0}, 1: {0: 3.0, 10: 1.0, 20: 1.5}})
    rows["copy"] = rows["fact_id"].astype(int)
    # The second copy reached 1 at step 10, when its fact was still there.
    assert durability(rows, runs) == pytest.approx(1.0)
    assert durability(rows[rows["copy"] == 1], runs) == pytest.approx(1.0)


def test_it_stands_in_summaries_and_among_effects_with_its_interval() -> None:
    generator = np.random.default_rng(1)
    paths = random_paths(generator, ["a", "b"], seeds=2, facts=12, points=4)
    rows, runs = study(paths, b={"protect": "anchor"})
    answers = Answers(rows, runs, draws=200)
    line = summarise(answers, runs)[0]
    assert line["durability_low"] < line["durability"] < line["durability_high"]
    effects = effects_table(answers, runs).set_index(["measure", "arm"])
    between = effects.loc[("durability", "b")]
    between = between[between["versus"] == "a"].iloc[0]
    values = [answers.replicates.of(arm, MEASURES.get("durability")).value for arm in "ab"]
    assert None not in values and between["value"] == pytest.approx(values[1] - values[0])
    assert between["low"] < between["value"] < between["high"] and between["test"] == "bootstrap"
    assert set(FACTORS) <= set(runs)
    held = Comparison(factor="protect", of=("anchor",), against="none")
    claim = Claim(name="anchor-lasts", sentence="Anchored edits last.", estimate="durability", compare=held)
    (ruling,) = judge([claim], answers, runs)
    assert ruling.effect.value == pytest.approx(values[1] - values[0])


STUDIES = 80


def test_intervals_cover_the_truth() -> None:
    """Facts that are lost at a moment of their own, asked at three exams of a steady fall: alone, and as a difference
    between two arms in which the same facts are firm."""
    generator = np.random.default_rng(7)
    seeds, facts, exams = 2, 24, np.array([0.0, 1 / 3, 2 / 3, 1.0])
    weights = passage_weights(exams, 0.0, 1.0)
    rate = rate_named("durability")
    covered = {"one": 0, "difference": 0}
    for number in range(STUDIES):
        counts = {}
        firmness = generator.random((seeds, facts))
        for arm, hazard in (("a", 1.5), ("b", 0.6)):
            lost_at = generator.exponential(1 / (2 * hazard * firmness))
            hits = sum(weight * (lost_at > at) for at, weight in zip(exams, weights, strict=True))
            index = pd.MultiIndex.from_product([range(seeds), [0], range(facts)], names=["seed", "copy", "fact_id"])
            table = pd.DataFrame({"hits": np.ravel(hits), "asked": 1}, index=index).reset_index()
            table["fact_id"] = table["seed"].astype(str) + "-" + table["fact_id"].astype(str)
            counts[arm, "durability"] = table.set_index(["seed", "copy", "fact_id"])
        joint = joint_of(counts, draws=400, seed=number)
        for name, of in (
            ("one", {("a", "durability"): 1.0}),
            ("difference", {("b", "durability"): 1.0, ("a", "durability"): -1.0}),
        ):
            found = joint.estimate(of)
            truth = sum(sign * expected(weights, exams, {"a": 1.5, "b": 0.6}[arm]) for (arm, _), sign in of.items())
            covered[name] += found.low is not None and found.high is not None and found.low <= truth <= found.high
    assert rate.name == "retention_edited"
    shares = {name: count / STUDIES for name, count in covered.items()}
    assert all(0.88 <= share <= 1 for share in shares.values()), shares


def expected(weights: np.ndarray, exams: np.ndarray, hazard: float) -> float:
    """The mean over facts whose firmness is even from 0 to 1 of how much of an exponential survival is counted."""
    rates = 2 * hazard * exams
    survival = np.where(rates > 0, -np.expm1(-rates) / np.where(rates > 0, rates, 1), 1.0)
    return float(weights @ survival)
