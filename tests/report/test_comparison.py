"""Two runs on one page: which arms belong together, what changed, and that shared facts are paired."""

from __future__ import annotations

from html import unescape

import numpy as np
import pandas as pd
import pytest

from indelible.numbers.answers import Answers
from indelible.report.comparison import Comparison, Run, answer, compare_runs, paired_arms, render_comparison
from simulated import SimulatedArm, isolated, simulate


def run(name: str, *arms: SimulatedArm, seed: int = 0, n_edits: int = 24, **settings: object) -> Run:
    rows, runs = simulate(arms, seeds=(0, 1), n_edits=n_edits, n_intrinsic=20, generator=np.random.default_rng(seed))
    return Run(name, rows, runs, settings, {"versions": {"torch": name}})


def retuned(first: Run, name: str, lost: int) -> Run:
    """The same run in which the tuned model lost some more of the edits that it had kept."""
    rows = first.rows.copy()
    kept = rows[
        (rows["phase"] == "tuned") & (rows["fact_set"] == "edited") & (rows["kind"] == "prompt") & rows["success"]
    ]
    chosen = np.linspace(0, len(kept) - 1, lost).astype(int)  # of all seeds
    rows.loc[kept.index[chosen], "success"] = False
    return Run(name, rows, first.runs, first.settings, first.provenance)


def table(*arms: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"arm": arm, "editor": editor, "paraphrases": 0, "objective": "text", "tuner": "full", "mask": mask}
            for arm, editor, mask in arms
        ]
    )


def test_arms_go_by_name_then_by_what_they_are() -> None:
    first = table(("a", "memit", "none"), ("b", "memit", "head"), ("c", "rome", "none"), ("d", "ft", "none"))
    second = table(("a", "rome", "none"), ("B", "memit", "head"), ("d1", "ft", "none"), ("d2", "ft", "none"))
    # c is what the other's a is, but that one is taken; d could be either of two.
    assert paired_arms(first, second) == [("a", "a"), ("b", "B")]
    assert paired_arms(second, first) == [("a", "a"), ("B", "b")]


def test_the_change_is_the_difference_of_the_rates() -> None:
    first = run("one", SimulatedArm("memit", retention_edited=0.5))
    second = run("two", SimulatedArm("memit", retention_edited=0.9), seed=1)
    found = compare_runs(first, second, draws=400).arms[0].of("retention_edited")
    assert found is not None
    rates = [Answers(one.rows).replicates.value(("memit", "retention_edited")) for one in (first, second)]
    assert (found.first.value, found.second.value) == pytest.approx(rates)
    assert found.difference.value == pytest.approx(rates[1] - rates[0])
    assert found.difference.low is not None and found.difference.low > 0


def test_shared_facts_are_paired() -> None:
    first = run("one", SimulatedArm("memit", retention_edited=0.6))
    same = compare_runs(first, first, draws=400).arms[0].of("retention_edited")
    assert same is not None and same.difference.value == 0 and same.difference.interval is not None
    few = compare_runs(first, retuned(first, "two", 3), draws=400)
    paired = few.arms[0].of("retention_edited")
    strangers = retuned(first, "two", 3)
    strangers.rows["fact_id"] = "other-" + strangers.rows["fact_id"]
    apart = compare_runs(first, strangers, draws=400).arms[0]
    unpaired = apart.of("retention_edited")
    assert paired is not None and paired.difference.interval is not None
    assert unpaired is not None and unpaired.difference.interval is not None
    assert paired.difference.value == unpaired.difference.value
    widths = [one.difference.high - one.difference.low for one in (paired, unpaired)]  # type: ignore[union-attr]
    assert widths[0] < 0.7 * widths[1]
    assert len(few.arms[0].lost) == 3 and not few.arms[0].regained
    assert few.arms[0].shared == 2 * (24 + 20) and apart.shared == 0


def test_an_isolated_arm_shares_its_facts_with_one_that_is_not() -> None:
    first = run("one", SimulatedArm("memit", retention_edited=0.6))
    second = retuned(first, "two", 3)
    apart = Run("two", isolated(second.rows, "memit"), second.runs, {}, {})
    found = [compare_runs(first, other, draws=100).arms[0] for other in (second, apart)]
    assert [(arm.shared, len(arm.lost), len(arm.regained)) for arm in found] == [(2 * (24 + 20), 3, 0)] * 2
    # Of 24 models, 13 forget what the first run kept: most of them.
    answers = apart.rows
    known = answers[(answers["fact_set"] == "intrinsic") & (answers["seed"] == 0) & answers["success"]]
    fact = known.loc[(known["phase"] == "tuned") & (known["kind"] == "prompt"), "fact_id"].iloc[0]
    for copies, lost in ((11, 3), (13, 4)):
        forgets = (answers["fact_id"] == fact) & (answers["seed"] == 0) & (answers["copy"] < copies)
        less = answers.assign(success=answers["success"] & ~(forgets & (answers["phase"] == "tuned")))
        assert len(compare_runs(first, Run("two", less, second.runs, {}, {}), draws=100).arms[0].lost) == lost


def test_the_page_says_what_changed_and_escapes_it() -> None:
    first = run("one", SimulatedArm("memit"), SimulatedArm("control", editor="none"), tuning={"steps": 40})
    second = retuned(first, "<b>two</b>", 12)
    second = Run(second.name, second.rows, second.runs, {"tuning": {"steps": 80}}, {"versions": {"torch": "new"}})
    page = render_comparison(first, second)
    assert page == render_comparison(first, second)
    assert "<b>" not in page
    text = unescape(page)
    assert "From one to <b>two</b>, edited retention changed by" in text and "fewer edits were kept." in text
    assert '<th scope="row">tuning.steps</th><td>40</td><td>80</td>' in page
    assert '<th scope="row">versions.torch</th><td>one</td><td>new</td>' in page
    assert "12 lost only in" in page
    assert "https:" not in page and "http:" not in page


def test_runs_without_anything_in_common_are_told_so() -> None:
    first, second = run("one", SimulatedArm("a")), run("two", SimulatedArm("b", editor="rome"))
    comparison = compare_runs(first, second, draws=100)
    assert answer(comparison, "one", "two") == "one and two have no arm in common."
    assert (comparison.only_first, comparison.only_second) == (("a",), ("b",))
    assert "no arm in common" in render_comparison(first, second)
    controls = run("one", SimulatedArm("control", editor="none"))
    said = answer(compare_runs(controls, controls, draws=100), "one", "two")
    assert said == "In no arm did both one and two measure how many edits were kept."
    assert isinstance(comparison, Comparison)
    later = Run("two", first.rows.assign(seed=first.rows["seed"] + 7), first.runs, {}, {})
    said = answer(compare_runs(first, later, draws=100), "one", "two")
    assert said == "one and two share no seed, so that nothing can be compared."
