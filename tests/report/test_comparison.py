"""Two runs on one page: which arms belong together, what changed, and that shared facts are paired."""

from __future__ import annotations

import json
from dataclasses import replace
from html import unescape

import numpy as np
import pandas as pd
import pytest

from indelible.numbers.answers import Answers
from indelible.numbers.words import MISSING
from indelible.report.comparison import answer, compare_runs, paired_arms, render_comparison
from indelible.report.run import Run
from simulated import SimulatedArm, isolated, simulate


def run(name: str, *arms: SimulatedArm, seed: int = 0, n_edits: int = 24, **settings: object) -> Run:
    rows, runs = simulate(arms, seeds=(0, 1), n_edits=n_edits, n_intrinsic=20, generator=np.random.default_rng(seed))
    return Run(name, Answers(rows, draws=400), runs, settings, {"versions": {"torch": name}})


def retuned(first: Run, name: str, lost: int) -> Run:
    """The same run in which the tuned model lost some more of the edits that it had kept."""
    rows = first.answers.rows.copy()
    kept = rows[
        (rows["phase"] == "tuned") & (rows["fact_set"] == "edited") & (rows["kind"] == "prompt") & rows["success"]
    ]
    chosen = np.linspace(0, len(kept) - 1, lost).astype(int)  # of all seeds
    rows.loc[kept.index[chosen], "success"] = False
    return replace(first, name=name, answers=Answers(rows, draws=400))


def by_loss(run: Run, *losses: float) -> Run:
    """The same run with held-out losses at the exams on the way."""
    figures = json.dumps({0: dict(zip((0, 10, 20, 30, 40), losses, strict=True))})
    runs = run.runs.assign(figures=figures)
    return replace(run, answers=Answers(run.answers.rows, runs, draws=400), runs=runs)


def test_durability_is_compared_over_what_both_runs_reached() -> None:
    arm = SimulatedArm("memit")
    far, near = by_loss(run("a", arm), 5, 4, 3, 2, 1), by_loss(run("b", arm), 5, 4.5, 4, 3.5, 3)
    alone = [one.estimate("memit", "durability").value for one in (far, near)]
    found = compare_runs(far, near).arms[0].changes["durability"]
    assert (found.second.value, found.difference.value) == pytest.approx((alone[1], alone[1] - found.first.value))
    assert found.first.value is not None and alone[0] is not None
    assert found.first.value > alone[0] + 0.05, "what it lost at losses that the other never reached does not count"
    assert "durability" not in compare_runs(far, run("c", arm)).arms[0].changes


def table(*arms: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "editor": editor,
                "paraphrases": 0,
                "objective": "text",
                "tuner": "full",
                "mask": mask,
                "protect": "none",
            }
            for arm, editor, mask in arms
        ]
    )


def test_runs_that_judge_differently_say_so() -> None:
    first, second = run("a", SimulatedArm("memit")), run("b", SimulatedArm("memit"), as_published=True)
    assert "in b as published: that is part of every change." in render_comparison(first, second)
    assert "as published:" not in render_comparison(first, first)


def test_arms_go_by_name_then_by_what_they_are() -> None:
    first = table(("a", "memit", "none"), ("b", "memit", "head"), ("c", "rome", "none"), ("d", "ft", "none"))
    second = table(("a", "rome", "none"), ("B", "memit", "head"), ("d1", "ft", "none"), ("d2", "ft", "none"))
    # c is what the other's a is, but that one is taken; d could be either of two.
    assert paired_arms(first, second) == [("a", "a"), ("b", "B")]
    assert paired_arms(second, first) == [("a", "a"), ("B", "b")]


def test_the_change_is_the_difference_of_the_rates() -> None:
    first = run("one", SimulatedArm("memit", retention_edited=0.5))
    second = run("two", SimulatedArm("memit", retention_edited=0.9), seed=1)
    found = compare_runs(first, second).arms[0].changes["retention_edited"]
    rates = [one.summary[0]["retention_edited"] for one in (first, second)]
    assert (found.first.value, found.second.value) == pytest.approx(rates)
    assert found.difference.value == pytest.approx(rates[1] - rates[0])
    assert found.difference.low is not None and found.difference.low > 0


def test_shared_facts_are_paired() -> None:
    first = run("one", SimulatedArm("memit", retention_edited=0.6))
    same = compare_runs(first, first).arms[0].changes["retention_edited"]
    assert same.difference.value == 0 and same.difference.interval is not None
    few = compare_runs(first, retuned(first, "two", 3))
    paired = few.arms[0].changes["retention_edited"]
    rows = retuned(first, "two", 3).answers.rows
    strangers = replace(first, name="two", answers=Answers(rows.assign(fact_id="other-" + rows["fact_id"].astype(str))))
    apart = compare_runs(first, strangers).arms[0]
    unpaired = apart.changes["retention_edited"]
    assert paired.difference.value == unpaired.difference.value
    widths = [one.difference.high - one.difference.low for one in (paired, unpaired)]  # type: ignore[operator]
    assert widths[0] < 0.7 * widths[1]
    assert len(few.arms[0].lost) == 3 and few.arms[0].regained.empty
    assert len(few.arms[0].facts) == 2 * (24 + 20) and apart.facts.empty


def test_an_isolated_arm_shares_its_facts_with_one_that_is_not() -> None:
    first = run("one", SimulatedArm("memit", retention_edited=0.6))
    second = retuned(first, "two", 3)
    apart = replace(second, answers=Answers(isolated(second.answers.rows, "memit")))
    found = [compare_runs(first, other).arms[0] for other in (second, apart)]
    assert [(len(arm.facts), len(arm.lost), len(arm.regained)) for arm in found] == [(2 * (24 + 20), 3, 0)] * 2
    # Of 24 models, 13 forget what the first run kept: most of them.
    answers = apart.answers.rows
    known = answers[(answers["fact_set"] == "intrinsic") & (answers["seed"] == 0) & answers["success"]]
    fact = known.loc[(known["phase"] == "tuned") & (known["kind"] == "prompt"), "fact_id"].iloc[0]
    for copies, lost in ((11, 3), (13, 4)):
        forgets = (answers["fact_id"] == fact) & (answers["seed"] == 0) & (answers["copy"] < copies)
        less = answers.assign(success=answers["success"] & ~(forgets & (answers["phase"] == "tuned")))
        assert len(compare_runs(first, replace(second, answers=Answers(less))).arms[0].lost) == lost


def test_the_page_says_what_changed_and_escapes_it() -> None:
    first = run("one", SimulatedArm("memit"), SimulatedArm("control", editor="none"), model="m", tuning={"steps": 40})
    second = retuned(first, "<b>two</b>", 12)
    second = replace(
        second, settings={"model": "m", "tuning": {"steps": 80}}, provenance={"versions": {"torch": "new"}}
    )
    page = render_comparison(first, second)
    assert page == render_comparison(first, second)
    assert "<b>" not in page
    text = unescape(page)
    assert "From one to <b>two</b>, edited retention changed by" in text and "fewer edits were kept." in text
    assert text.count("<dt>model</dt><dd>m</dd>") == 2
    assert '<th scope="row">tuning.steps</th><td>40</td><td>80</td>' in page
    assert '<th scope="row">versions.torch</th><td>one</td><td>new</td>' in page
    assert "12 lost only in" in page
    assert "https:" not in page and "http:" not in page


def test_of_several_arms_it_is_said_in_how_many_and_never_their_mean() -> None:
    arms = [SimulatedArm("memit"), SimulatedArm("ft", editor="ft"), SimulatedArm("rome", editor="rome")]
    first = run("one", *arms, n_edits=12)
    rows = first.answers.rows.copy()
    kept = rows[(rows["phase"] == "tuned") & (rows["fact_set"] == "edited") & rows["success"]]
    rows.loc[kept.index[kept["arm"] == "ft"], "success"] = False
    second = replace(first, name="two", answers=Answers(rows, draws=400))
    said = answer(compare_runs(first, second), "one", "two")
    assert said == "From one to two, edits were kept: fewer in 1 of 3 arms; in the other 2 there is no telling."


def test_runs_without_anything_in_common_are_told_so() -> None:
    first, second = run("one", SimulatedArm("a")), run("two", SimulatedArm("b", editor="rome"))
    comparison = compare_runs(first, second)
    assert answer(comparison, "one", "two") == "one and two have no arm in common."
    assert (comparison.only_first, comparison.only_second) == (("a",), ("b",))
    assert "no arm in common" in render_comparison(first, second)
    controls = run("one", SimulatedArm("control", editor="none"))
    said = answer(compare_runs(controls, controls), "one", "two")
    assert said == "In no arm did both one and two measure how many edits were kept."
    later = replace(
        second, answers=Answers(first.answers.rows.assign(seed=first.answers.rows["seed"] + 7)), runs=first.runs
    )
    said = answer(compare_runs(first, later), "one", "two")
    assert said == "one and two share no seed, so that nothing can be compared."
    page = render_comparison(first, later)
    assert "<figure" not in page and f"{MISSING} points" not in page
