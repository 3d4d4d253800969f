"""Claims: what can be written, which arms they compare, and what their verdicts say of studies whose truth is known."""

from __future__ import annotations

import itertools
import re
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
    assert len(claims) == 10
    assert claims["edits-lose-more"].estimate == "excess_loss"
    assert {claim.counts_from for claim in claims.values() if claim.measure.unit == "nats"} == {0.2}
    doses = claims["paraphrases-help"].compare
    assert doses is not None
    assert (doses.of, doses.against) == ((1, 3, 5, 10), 0)
    assert {name for name, claim in claims.items() if claim.matched_utility} == {
        "freezing-edited-layers-helps",
        "freezing-all-below-helps",
        "reinforcement-forgets-less",
    }
    of_losses = {name for name, claim in claims.items() if claim.estimate == "edits_loss_equal"}
    assert {name for name in of_losses if claims[name].sign == 1} == {
        "alphaedit-decays-more",
        "training-around-edits-harms",
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"estimate": "gapp"}, "no estimate"),
        ({"smallest": float("nan")}, "(?s)smallest.*finite"),
        ({"where": {"editor": []}}, "(?s)where.editor.*at least 1"),
        ({"estimate": "retention_edited"}, "say which with 'compare'"),
        ({"name": "Two words"}, "pattern"),
        ({"compare": {"factor": "mask", "of": ["none"], "against": "none"}}, "compared with itself"),
        ({"compare": {"factor": "paraphrases", "of": ["3"], "against": 0}}, "paraphrases are numbers"),
        ({"where": {"colour": ["red"]}}, "colour"),
        ({"smallest": 5}, "less than 1"),
        ({"strain": 2}, "less than or equal to 1"),
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
        (None, "^There is no claims file"),
    ],
)
def test_files_of_claims_that_cannot_be_used(text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_claims(file)
    assert "\n" not in str(caught.value)


def test_a_true_gap_is_supported_and_its_opposite_excluded() -> None:
    true = only(LOST_MORE, PLAIN)
    assert true.decision == "supported"
    assert true.effect.value == pytest.approx(0.3, abs=0.12)
    opposite = only(LOST_MORE.model_copy(update={"direction": "below"}), PLAIN)
    assert opposite.decision == "excluded" and opposite.why.count("It is the other way.") == 1
    assert opposite.effect.value == pytest.approx(-(true.effect.value or 0))


def test_an_effect_that_is_excluded_is_said_to_be_excluded_here() -> None:
    alike = replace(PLAIN, retention_edited=0.8)
    ruling = only(LOST_MORE.model_copy(update={"smallest": 0.3}), alike, n_edits=80)
    assert ruling.decision == "excluded"
    assert "An effect of 30 points or more is excluded here." in ruling.why


def test_too_little_data_says_what_the_design_could_have_shown() -> None:
    ruling = only(LOST_MORE, replace(PLAIN, retention_edited=0.7), n_edits=8)
    assert ruling.decision == "cannot tell"
    low, high = ruling.effect.low, ruling.effect.high
    assert low is not None and high is not None and ruling.detectable is not None
    assert ruling.detectable == pytest.approx((high - low) * (1.959964 + 0.841621) / (2 * 1.959964), rel=1e-5)
    assert f"shows in four of five studies is {ruling.detectable * 100:.3g} points" in ruling.why
    assert "100 times" not in ruling.why


def test_a_ceiling_is_called_a_ceiling() -> None:
    """Where 98 of 100 edits are kept without paraphrases, five points of gain are out of reach."""
    plain, dosed = (replace(arm, retention_edited=kept) for arm, kept in ((PLAIN, 0.98), (DOSED, 1.0)))
    ruling = only(PARAPHRASES, plain, dosed, n_edits=100)
    assert ruling.decision == "cannot tell: ceiling"
    assert re.search(
        r"leaves room for [0-4]\.\d points, and 5 would count: such an effect is out of reach here", ruling.why
    )
    small = only(PARAPHRASES.model_copy(update={"smallest": 0.001}), plain, dosed, n_edits=100)
    assert small.decision != "cannot tell: ceiling"
    fewer = PARAPHRASES.model_copy(update={"direction": "below"})  # for a loss there is room
    assert only(fewer, plain, dosed, n_edits=100).decision == "excluded"


@pytest.mark.parametrize("control", [True, False])
def test_a_dose_that_took_too_little_is_called_so(control: bool) -> None:
    """What the control lost says how much tuning strained; without one, the intrinsic facts of the edited model do."""
    own, unedited = (0.6, 0.93) if control else (0.95, 0.6)  # what is not asked does not matter
    arms = [replace(PLAIN, retention_edited=own, retention_intrinsic=own)]
    arms += [SimulatedArm("control", editor="none", retention_intrinsic=unedited)] if control else []
    claim = LOST_MORE.model_copy(update={"smallest": 0.3})
    ruling = only(claim, *arms, n_edits=100)
    assert ruling.decision == "cannot tell: dose"
    assert "at least 10% is asked for" in ruling.why
    assert only(claim.model_copy(update={"strain": 0.01}), *arms, n_edits=100).decision == "excluded"


def test_an_effect_that_is_shown_needs_no_dose() -> None:
    arms = replace(PLAIN, retention_edited=0.5, retention_intrinsic=0.97)
    assert only(LOST_MORE, arms).decision == "supported"


def test_unlike_families_are_judged_apart() -> None:
    """A mean over an editor with a gap and one without would be neither's."""
    alike = replace(PLAIN, name="ft", editor="ft", retention_edited=0.8)
    first, second = judged([LOST_MORE], *study(PLAIN, alike, n_edits=80), draws=800)
    assert [(one.family, one.decision) for one in (first, second)] == [("memit", "supported"), ("ft", "cannot tell")]
    assert [len(one.findings) for one in (first, second)] == [1, 1]
    masks = replace(PLAIN, name="frozen", mask="head")
    found = judged([LOST_MORE], *study(PLAIN, masks), draws=200)
    assert [one.family for one in found] == ["nothing frozen", "head"]
    third = replace(DOSED, name="memit, 1", paraphrases=1)
    (doses,) = judged([PARAPHRASES], *study(PLAIN, DOSED, third), draws=200)  # levels of what is compared
    assert doses.family == "" and len(doses.findings) == 2
    assert (first.name, doses.name) == ("lost-more-memit", "paraphrases")


def test_families_of_other_settings_are_named_by_their_arms() -> None:
    rows, runs = study(PLAIN, replace(PLAIN, name="longer"), n_edits=20)
    runs = runs.assign(tuning=np.where(runs["arm"] == "longer", '{"steps": 9}', '{"steps": 3}'))
    assert [one.family for one in judged([LOST_MORE], rows, runs)] == ["memit", "longer"]


def test_verdicts_are_corrected_over_the_families_of_a_claim() -> None:
    alone = only(LOST_MORE, PLAIN).effect
    rows, runs = study(PLAIN)
    other = [table.assign(arm="ft", editor="ft") for table in (rows, runs)]
    both = judged([LOST_MORE], *(pd.concat(pair) for pair in zip((rows, runs), other, strict=True)), draws=800)
    assert alone.p is not None
    assert [one.effect.p for one in both] == pytest.approx([2 * alone.p] * 2, rel=0.3)


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
    assert none.decision == "cannot tell" and none.findings == ()
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
        about = {
            "editor": "memit",
            "paraphrases": 0,
            "objective": "text",
            "tuner": "full",
            "mask": "none",
            "protect": "none",
        }
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
    assert ruling.decision == "cannot tell"
    assert ruling.why == "The study has no arms to compare for it; its paraphrases is 0."


def test_an_exclusion_is_corrected_over_the_comparisons() -> None:
    effect = Estimate(0.02, -0.01, 0.049, 0.2, 100, 3)
    assert decide(effect, LOST_MORE, p_smaller=0.02) == "excluded"
    assert decide(effect, LOST_MORE, p_smaller=0.2) == "cannot tell"


def test_an_effect_that_is_there_but_too_small_says_so() -> None:
    ruling = only(LOST_MORE.model_copy(update={"smallest": 0.7}), PLAIN)
    assert ruling.decision == "excluded"
    assert "An effect of 70 points or more is excluded here, though there is a smaller one." in ruling.why


def test_arms_without_a_common_seed_are_said_to_have_none() -> None:
    third = replace(DOSED, name="memit, 1", paraphrases=1)
    rows, runs = study(PLAIN, DOSED, third)
    own = {"memit": {0, 1}, "memit, 3": {0}, "memit, 1": {1}}
    parts = [
        table[[seed in own[arm] for arm, seed in zip(table["arm"], table["seed"], strict=True)]]
        for table in (rows, runs)
    ]
    (ruling,) = judged([PARAPHRASES], *parts)
    assert [finding.effect.value is not None for finding in ruling.findings] == [True, True]
    assert ruling.decision == "cannot tell" and ruling.why.startswith("No seed finished in all of the arms")


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
        (0.2, 0.1, 0.3, 0.2, "cannot tell"),  # not after correction
        (0.2, 0.1, 0.3, None, "supported"),
        (0.03, 0.01, 0.08, 0.01, "cannot tell"),  # may be too small to count
        (0.03, 0.01, 0.045, 0.01, "excluded"),  # is too small to count
        (-0.2, -0.3, -0.1, 0.01, "excluded"),
        (0.1, -0.1, 0.3, 0.4, "cannot tell"),
    ],
)
def test_what_an_effect_decides(value: float, low: float, high: float, p: float | None, decision: str) -> None:
    assert decide(Estimate(value, low, high, p, 100, 3), LOST_MORE) == decision


def test_an_effect_that_cannot_be_formed_decides_nothing() -> None:
    assert decide(Estimate(), LOST_MORE) == "cannot tell"
