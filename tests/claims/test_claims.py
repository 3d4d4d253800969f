"""Claims: what can be written, which arms they compare, and what their verdicts say of studies whose truth is known."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from indelible.claims.claim import Claim, Comparison, built_in_claims, read_claims
from indelible.claims.judge import comparisons, decide, judge
from indelible.claims.rulings import Ruling
from indelible.errors import ConfigError
from indelible.numbers.answers import Answers
from indelible.numbers.arms import arms_of, factor_between
from indelible.numbers.estimate import Estimate
from simulated import SimulatedArm, Tables, simulate

LOST_MORE = Claim(name="lost-more", sentence="Edits are lost more.", estimate="gap")
PARAPHRASES = Claim(
    name="paraphrases",
    sentence="Paraphrases help.",
    estimate="retention_edited",
    compare=Comparison(factor="paraphrases", of=(1, 3), against=0),
)
PLAIN = SimulatedArm("memit", retention_edited=0.5, retention_intrinsic=0.8)
DOSED = SimulatedArm("memit, 3", paraphrases=3, retention_edited=0.9, retention_intrinsic=0.8)


def study(*arms: SimulatedArm, seed: int = 0, n_edits: int = 60) -> Tables:
    return simulate(arms, seeds=(0, 1, 2), n_edits=n_edits, generator=np.random.default_rng(seed))


def judged(
    claims: list[Claim], rows: pd.DataFrame, runs: pd.DataFrame, draws: int = 100, always: frozenset[str] = frozenset()
) -> tuple[Ruling, ...]:
    return judge(claims, Answers(rows, draws=draws), runs, always=always)


def only(claim: Claim, *arms: SimulatedArm, **study_options: int) -> Ruling:
    (ruling,) = judged([claim], *study(*arms, **study_options), draws=800)
    return ruling


def test_built_in_claims_are_those_that_the_field_disputes() -> None:
    claims = {claim.name: claim for claim in built_in_claims()}
    assert len(claims) == 9
    assert claims["not-only-less-confident"].estimate == "matched_gap"
    doses = claims["paraphrases-help"].compare
    assert doses is not None
    assert (doses.of, doses.against) == ((1, 3, 5, 10), 0)
    assert {name for name, claim in claims.items() if claim.matched_utility} == {
        "freezing-edited-layers-helps",
        "freezing-all-below-helps",
        "reinforcement-forgets-less",
    }
    assert {name for name, claim in claims.items() if claim.sign == -1} == {
        "alphaedit-decays-more",
        "training-around-edits-harms",
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"estimate": "gapp"}, "no estimate"),
        ({"estimate": "retention_edited"}, "say which with 'compare'"),
        ({"name": "Two words"}, "pattern"),
        ({"compare": {"factor": "mask", "of": ["none"], "against": "none"}}, "compared with itself"),
        ({"compare": {"factor": "mask", "of": ["head"], "against": "none"}}, "leave 'compare' out"),
        ({"compare": {"factor": "paraphrases", "of": ["3"], "against": 0}}, "paraphrases are numbers"),
        ({"where": {"colour": ["red"]}}, "colour"),
        ({"smallest": 5}, "less than 1"),
    ],
)
def test_claims_that_cannot_be_judged_are_refused(changed: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Claim.model_validate({"name": "a", "sentence": "A.", "estimate": "gap", **changed})


def test_claims_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("- {name: mine, sentence: Mine., estimate: gap_base, where: {editor: [memit]}}\n")
    (claim,) = read_claims(file)
    assert (claim.name, claim.estimate, claim.where) == ("mine", "gap_base", {"editor": ("memit",)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\n", "are no list"),
        ("- {name: a, sentence: A., estimate: gup}\n", "claim 1 in .*estimate.* is 'gup': .*no estimate"),
        ("- {name: [}\n", "not valid YAML"),
        ("- 3\n", "claim 1 in .* should be a mapping"),
        ("- {name: paraphrases-help, sentence: A., estimate: gap}\n", "Two claims are named 'paraphrases-help'"),
        (None, "There is no claims file"),
    ],
)
def test_files_of_claims_that_cannot_be_used(text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_claims(file)
    assert "\n" not in str(caught.value)


def test_a_true_gap_is_supported_and_its_opposite_contradicted() -> None:
    true = only(LOST_MORE, PLAIN)
    assert true.decision == "supported"
    assert true.effect.value == pytest.approx(0.3, abs=0.12)
    opposite = only(LOST_MORE.model_copy(update={"direction": "below"}), PLAIN)
    assert opposite.decision == "contradicted"
    assert opposite.effect.value == pytest.approx(-(true.effect.value or 0))


def test_an_effect_that_is_excluded_is_contradicted_and_says_so() -> None:
    alike = replace(PLAIN, retention_edited=0.8)
    ruling = only(LOST_MORE.model_copy(update={"smallest": 0.3}), alike, n_edits=80)
    assert ruling.decision == "contradicted"
    assert "30 points or more is excluded" in ruling.why


def test_too_little_data_is_undecided_and_says_how_much_more() -> None:
    ruling = only(LOST_MORE, replace(PLAIN, retention_edited=0.7), n_edits=8)
    assert ruling.decision == "undecided"
    assert "would decide it" in ruling.why


def test_arms_are_compared_that_differ_in_the_claims_factor_alone() -> None:
    _, runs = study(PLAIN, DOSED, replace(PLAIN, name="ft", editor="ft"), replace(DOSED, name="frozen", mask="head"))
    pairs = comparisons(PARAPHRASES, arms_of(runs))
    assert [(pair.arm, pair.against) for pair in pairs] == [("memit, 3", "memit")]
    assert pairs[0].label == "3 paraphrases against 0 paraphrases"


def test_labels_say_in_what_the_comparisons_differ() -> None:
    arms = [
        replace(arm, name=f"{arm.name} {editor} {mask}", editor=editor, mask=mask)
        for arm, editor, mask in itertools.product((PLAIN, DOSED), ("memit", "ft"), ("none", "head"))
    ]
    _, runs = study(*arms, n_edits=4)
    labels = [pair.label for pair in comparisons(PARAPHRASES, arms_of(runs))]
    assert labels[0] == "memit, nothing frozen: 3 paraphrases against 0 paraphrases"
    assert len(set(labels)) == 4


def test_a_difference_between_arms_is_judged_with_a_paired_test() -> None:
    ruling = only(PARAPHRASES, PLAIN, DOSED)
    assert ruling.decision == "supported"
    (finding,) = ruling.findings
    assert finding.effect.p is not None
    assert finding.effect.p < 0.01
    assert finding.effect.value == pytest.approx(0.4, abs=0.12)


def test_p_values_are_corrected_over_the_comparisons_of_a_claim() -> None:
    third = replace(DOSED, name="memit, 1", paraphrases=1)
    alone = {finding.comparison: finding.effect.p for finding in only(PARAPHRASES, PLAIN, DOSED).findings}
    both = {finding.comparison: finding.effect.p for finding in only(PARAPHRASES, PLAIN, DOSED, third).findings}
    assert len(both) == 2
    shared = "3 paraphrases against 0 paraphrases"
    assert both[shared] == pytest.approx(2 * (alone[shared] or 0), rel=0.2)


def test_a_claim_without_arms_to_compare_gets_no_verdict() -> None:
    assert judged([PARAPHRASES], *study(PLAIN, n_edits=4)) == ()


def test_matched_utility_leaves_out_arms_that_did_not_reach_their_figure() -> None:
    claim = PARAPHRASES.model_copy(update={"matched_utility": True})
    rows, runs = study(PLAIN, DOSED)
    assert judged([claim], rows, runs.assign(reached=None)) == ()  # no rule, no matched utility
    (full,) = judged([claim], rows, runs.assign(reached=True))
    assert full.decision == "supported" and "left out" not in full.why
    short = runs.assign(reached=(runs["arm"] != "memit") | (runs["seed"] != 2))
    (none,) = judged([claim], rows, short)
    assert none.decision == "undecided" and none.findings == ()
    assert none.why.startswith("1 comparison is left out")


def test_arms_that_differ_in_settings_beside_the_factor_are_not_compared() -> None:
    _, runs = study(PLAIN, DOSED, n_edits=4)
    for column, other in (("tuning", '{"learning_rate": 0.1}'), ("options", '{"steps": 3}'), ("protocol", "isolated")):
        alike = runs.assign(**{column: other})
        assert len(comparisons(PARAPHRASES, arms_of(alike))) == 1
        apart = alike.copy()
        apart.loc[apart["arm"] == "memit", column] = "batch" if column == "protocol" else "{}"
        assert comparisons(PARAPHRASES, arms_of(apart)) == []


def test_a_tuner_brings_its_own_rate_and_an_objective_its_own_length() -> None:
    def arm(name: str, **tuning: object) -> dict[str, object]:
        about = {"editor": "memit", "paraphrases": 0, "objective": "text", "tuner": "full", "mask": "none"}
        return {"arm": name, **about, **tuning, "reached": None, "status": "done"}

    full = arm("full", tuning='{"tuner": "full", "learning_rate": 0.1, "steps": 4}')
    lora = arm("lora", tuner="lora", tuning='{"tuner": "lora", "learning_rate": 0.2, "steps": 4}')
    longer = arm("longer", tuner="lora", tuning='{"tuner": "lora", "learning_rate": 0.2, "steps": 8}')
    reason = arm("reason", objective="reason", tuning='{"tuner": "full", "learning_rate": 0.3, "steps": 9}')
    arms = {one.name: one for one in arms_of(pd.DataFrame([full, lora, longer, reason]))}
    assert factor_between(arms["full"], arms["lora"]) == "tuner"
    assert factor_between(arms["full"], arms["longer"]) is None
    assert factor_between(arms["full"], arms["reason"]) == "objective"
    assert factor_between(arms["lora"], arms["reason"]) is None


def test_a_claim_of_ones_own_is_answered_even_where_nothing_can_be_compared() -> None:
    rows, runs = study(PLAIN, n_edits=4)
    (ruling,) = judged([PARAPHRASES], rows, runs, always=frozenset({"paraphrases"}))
    assert ruling.decision == "undecided"
    assert ruling.why == "The study has no arms to compare for it; its paraphrases is 0."


def test_an_exclusion_is_corrected_over_the_comparisons() -> None:
    effect = Estimate(0.02, -0.01, 0.049, 0.2, 100, 3)
    assert decide(effect, 0.05, 0.02) == "contradicted"
    assert decide(effect, 0.05, 0.2) == "undecided"


def test_an_effect_that_is_there_but_too_small_says_so() -> None:
    ruling = only(LOST_MORE.model_copy(update={"smallest": 0.9}), PLAIN)
    assert ruling.decision == "contradicted"
    assert "There is an effect in the claimed direction" in ruling.why


def test_arms_without_a_common_seed_are_said_to_have_none() -> None:
    rows, runs = study(PLAIN, replace(PLAIN, name="ft", editor="ft"))
    own = {"memit": 0, "ft": 1}
    parts = [table[table["arm"].map(own) == table["seed"]] for table in (rows, runs)]
    (ruling,) = judged([LOST_MORE], *parts)
    assert [finding.effect.value is not None for finding in ruling.findings] == [True, True]
    assert ruling.decision == "undecided" and ruling.why.startswith("No seed finished in all of the arms")


def test_edits_without_a_match_are_counted() -> None:
    rows, runs = study(PLAIN)
    firm = (rows["fact_set"] == "edited") & rows["fact_id"].isin([f"edited-{number}" for number in range(10)])
    rows.loc[firm, "log_prob"] = -1e-5  # held more firmly than any intrinsic fact
    (ruling,) = judged([LOST_MORE.model_copy(update={"estimate": "matched_gap"})], rows, runs)
    worked = rows[firm & (rows["kind"] == "prompt") & (rows["phase"] == "edited")]["success"].sum()
    assert f" {worked} had no match and are left out." in ruling.why


def test_controls_and_unfinished_arms_are_not_compared() -> None:
    _, runs = study(PLAIN, SimulatedArm("control", editor="none"), replace(PLAIN, name="broken", fails_at="tuned"))
    assert [arm.name for arm in arms_of(runs)] == ["memit"]


@pytest.mark.parametrize(
    ("value", "low", "high", "p", "decision"),
    [
        (0.2, 0.1, 0.3, 0.01, "supported"),
        (0.2, 0.1, 0.3, 0.2, "undecided"),  # not after correction
        (0.2, 0.1, 0.3, None, "supported"),
        (0.03, 0.01, 0.08, 0.01, "undecided"),  # may be too small to count
        (0.03, 0.01, 0.045, 0.01, "contradicted"),  # is too small to count
        (-0.2, -0.3, -0.1, 0.01, "contradicted"),
        (0.1, -0.1, 0.3, 0.4, "undecided"),
    ],
)
def test_what_an_effect_decides(value: float, low: float, high: float, p: float | None, decision: str) -> None:
    assert decide(Estimate(value, low, high, p, 100, 3), 0.05) == decision


def test_an_effect_that_cannot_be_formed_decides_nothing() -> None:
    assert decide(Estimate(), 0.05) == "undecided"
