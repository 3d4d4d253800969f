"""The report, its words and its figures: complete, escaped, self-contained, and the same every time."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from indelible.claims.rulings import Finding, Ruling
from indelible.claims.verdict import verdict, with_unlike_criteria
from indelible.numbers.answers import Answers
from indelible.numbers.estimate import Estimate
from indelible.numbers.words import MINUS, percent, points, points_with_interval
from indelible.report.exhibit import Grid, Words, shown, walk
from indelible.report.exhibits.again import again, commands
from indelible.report.exhibits.answer import answer, answered
from indelible.report.exhibits.cards import chosen
from indelible.report.exhibits.claims import needed
from indelible.report.exhibits.facts import anchors, facts
from indelible.report.masthead import title
from indelible.report.page import render
from indelible.report.run import Run
from indelible.report.transcript import shorten, transcript
from simulated import ARMS, SimulatedArm, Tables, simulate

SETTINGS = {"model": "smollm2-135m", "tuning": {"learning_rate": 1e-4, "steps": 40}, "seeds": [0, 1], "note": None}
PROVENANCE = {"indelible": "0.1.0", "machine": "<b>bold</b>"}
EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def study() -> Tables:
    arms = (*ARMS[:1], *ARMS[4:], SimulatedArm("$x_1$ <i>& more"))
    rows, runs = simulate(arms, seeds=(0, 1), n_edits=8, n_intrinsic=12, generator=np.random.default_rng(0))
    hit = rows["fact_id"] == "edited-1"
    rows.loc[hit, ["prompt", "target", "generated"]] = EVIL
    runs.loc[runs["status"] == "failed", "error"] = EVIL + " is not a number."
    return rows, runs


def run_of(rows: pd.DataFrame, runs: pd.DataFrame, settings: Any = SETTINGS, provenance: Any = PROVENANCE) -> Run:
    return Run("run", Answers(rows, draws=200), runs, settings, provenance)


def page_for(*of: Any) -> str:
    run = run_of(*of)
    return render("report.html.j2", shown(run), title=title(run), name=run.name, as_published=run.as_published)


@pytest.fixture(scope="module")
def page(study: Tables) -> str:
    return page_for(*study)


class Elements(HTMLParser):
    """All elements with their attributes; checks that they close in order."""

    VOID = frozenset(("meta", "link", "br", "hr", "img", "input"))

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_well_formed_and_its_identifiers_are_unique(page: str) -> None:
    elements = Elements(page)
    assert elements.open == []
    identifiers = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    # Each reference inside a figure or from a region to its heading leads somewhere.
    references = re.findall(r'(?:url\(#|href="#|aria-labelledby=")([^)"]+)', page)
    assert references and set(references) <= set(identifiers)


def test_what_came_from_outside_is_escaped(page: str) -> None:
    tags = [tag for tag, _ in Elements(page).found]
    assert tags.count("script") == 1  # our own
    assert "alert" not in page[page.index("<script>") :]
    assert "b" not in tags and "i" not in tags
    assert page.count("&lt;script&gt;") > 6
    assert "<script>alert" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    picture = page[page.index(">", page.index("<svg")) : page.index("</svg>")]  # without its label
    assert "$x_1$ &lt;i&gt;&amp; more" in picture


def test_the_only_script_that_may_run_is_ours(page: str) -> None:
    script = page[page.index("<script>") + len("<script>") : page.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in page or f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page
    assert not any(name.startswith("on") for _, attributes in Elements(page).found for name in attributes)


def test_it_asks_nothing_of_the_network(page: str) -> None:
    assert not re.search(r"https?:|//[a-z]|@import|srcset|<iframe|<object", page)
    for tag, attributes in Elements(page).found:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:,")), (tag, attributes)


def test_it_holds_the_answer_and_all_the_evidence(page: str, study: Tables) -> None:
    text = unescape(re.sub(r"<[^>]+>", " ", page))
    assert re.findall(r"<h2[^>]*>([^<]+)", page) == [
        "What the model said",
        "Results",
        "Edits against intrinsic facts",
        "Retention while tuning",
        "Who pays what",
        "Every fact in every arm",
        "How it was done",
        "How to run it again",
        "Terms",
    ]
    assert run_of(*study).verdict.detail in text
    assert "judged alike" in text and "Judged as published" not in text
    assert "These 2 arms are unlike, and have no one answer." in text
    # The phases for a screen and for a phone, the extra loss, the lead, the curves of both arms with an edit that was
    # tuned, and what it was paid for.
    assert page.count("<svg") == 7
    assert "learning_rate: 0.0001" in text and "Do memit and ft edits in smollm2-135m survive fine-tuning?" in text
    assert "is not a number." in text
    assert len(page) < 600_000


def test_the_same_tables_give_the_same_bytes_in_any_order(study: Tables, page: str) -> None:
    rows, runs = study
    shuffled = rows.sample(frac=1, random_state=0)
    assert page_for(shuffled, runs) == page


def test_what_to_type_again_names_the_run_and_all_that_its_numbers_depend_on(study: Tables) -> None:
    versions = {"python": "3.12", "torch": "2.13.0+cpu", "trl": "1.16.0"}
    said = dict(commands("longer", {"versions": versions}))
    assert said["The same software:"] == "pip install torch==2.13.0 trl==1.16.0"
    assert "indelible report runs/longer runs/longer-again" in said.values()


def test_a_fact_that_several_seeds_ask_is_one_fact(page: str) -> None:
    assert "20 facts, each counted once" in page
    assert "<dt>facts</dt><dd>8 edited, 12 intrinsic</dd>" in page


def test_every_fact_has_a_row_a_cell_for_each_arm_and_a_place_of_its_own(page: str, study: Tables) -> None:
    matrix = page[page.index('<table class="matrix') : page.index("</table>", page.index('<table class="matrix'))]
    assert matrix.count('<tr id="r') == 20 == page.count('<section class="fact" id="f')
    run = run_of(*study)
    where = anchors(run)
    for arm, lines in run.transcripts.groupby("arm"):
        column = run.arms.index(arm)
        for (fact_set, fact), own in lines.groupby(["fact_set", "fact_id"]):
            row = re.search(rf'<tr id="r{where[fact_set, fact][1:]}".*?</tr>', matrix, re.DOTALL)
            assert row is not None
            cells = re.findall(r"<td(?: class=\"([\w ]+)\")?>([^<]*)</td>", row.group())[2:]
            marks = ["✓" if outcome == "kept" else "✗" for outcome in own["outcome"] if outcome in ("kept", "lost")]
            assert [mark for mark in cells[column][1] if mark in "✓✗"] == marks
            if set(own["outcome"]) == {"lost"}:
                assert cells[column] == ("l", "✗" * len(own))


def test_what_is_left_out_of_a_long_page_is_said_and_both_sets_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indelible.report.exhibits.facts.LARGEST_PAGE", 30)
    rows, runs = simulate(ARMS[:1], n_edits=40, n_intrinsic=5, wordings=0, generator=np.random.default_rng(0))
    run = run_of(rows, runs, {}, {})
    listed = anchors(run)
    assert len(listed) == 30 and sum(fact_set == "intrinsic" for fact_set, _ in listed) == 5
    lines = run.transcripts[run.transcripts["arm"] == "memit"]
    lost = set(lines.loc[(lines["fact_set"] == "edited") & (lines["outcome"] == "lost"), "fact_id"])
    assert 10 < len(lost) <= 25 and lost <= {fact for _, fact in listed}
    said = " ".join(part.text for part in (*facts(run), *again(run)) if isinstance(part, Words))
    assert "45 facts, " in said and "Here are 30 of them, those lost in most arms first" in said
    assert "None were recorded." in said and "None was recorded." in said


def test_cards_are_of_different_facts_and_show_what_was_said(study: Tables) -> None:
    lines = run_of(*study).transcripts
    found = list(chosen(lines[lines["arm"] == "memit"]))
    assert {card["fact_set"] for card in found} == {"edited", "intrinsic"} and 3 <= len(found) <= 5
    assert len({(card["fact_set"], card["fact_id"]) for card in found}) == len(found)
    lost = found[0]
    assert lost["title"] == "An edit that tuning undid" and lost["outcome"] == "lost"
    assert [lost[f"{phase}_success"] for phase in ("base", "edited", "tuned")] == [False, True, False]


def test_an_unfinished_study_says_so_above_its_answer(study: Tables) -> None:
    run = replace(run_of(*study), unfinished="This study is not finished.")
    parts = [part for part in answer(run) if isinstance(part, Words)]
    assert (parts[0].text, parts[0].look, parts[1].look) == ("This study is not finished.", "banner", "answer")


def test_settings_are_those_that_were_changed(study: Tables) -> None:
    run = replace(run_of(*study), changed={"model": "m", "tuning": {"steps": 7}})
    grids = {part.label: part.frame for part in walk(again(run)) if isinstance(part, Grid)}
    assert grids["Settings that differ from defaults"].to_numpy().tolist() == [["model", "m"], ["tuning.steps", "7"]]


RULED = Ruling(
    "c", "", "S.", "cannot tell", Estimate(0.1, -0.1, 0.3, seeds=2), "share", 0.05, 0.1, "W.",
    (Finding("a", "cannot tell", Estimate(0.1, -0.1, 0.3, seeds=2)),),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, "at most 8 seeds in place of 2 to see 5 points"),  # twice as fine, four times as many
        ({"effect": Estimate(0.1, -0.1, 0.3, seeds=1)}, "at least 4 seeds in place of 1 to see 5 points"),
        ({"detectable": 0.9}, "over 100 seeds like these to see 5 points"),
        ({"detectable": 0.04}, "a few more seeds"),
        ({"decision": "cannot tell: ceiling"}, "facts held less firmly"),
        ({"decision": "cannot tell: dose"}, "more tuning"),
        ({"findings": ()}, "arms to compare"),
        ({"effect": Estimate()}, "more edits that work"),
        ({"decision": "supported"}, "–"),  # noqa: RUF001
        ({"decision": "excluded"}, "–"),  # noqa: RUF001
    ],
)
def test_what_more_is_needed_follows_from_the_ruling(changed: dict[str, Any], says: str) -> None:
    assert needed(replace(RULED, **changed)).startswith(says)


def test_where_all_seeds_have_the_same_edits_more_seeds_are_not_what_is_needed(study: Tables) -> None:
    rows, runs = study
    assert needed(RULED, same_edits=True).startswith("about 4 times as many edits to see 5 points")
    apart = rows.assign(fact_id=rows["fact_id"] + rows["seed"].astype(str))
    assert run_of(rows, runs).same_edits and not run_of(apart, runs).same_edits
    one, own = rows[rows["seed"] == 0], {"facts": {"edited": "mine.jsonl", "n_edits": None}}
    assert run_of(one, runs, own).same_edits and not run_of(one, runs).same_edits


def test_what_is_whole_by_definition_has_no_interval(study: Tables) -> None:
    points = answered(run_of(*study)).set_index(["series", "phase"])
    base, edited = points.loc[("intrinsic", "base")], points.loc[("intrinsic", "edited")]
    assert (base["value"] == 1).all() and base["low"].isna().all() and edited["low"].notna().all()


def test_a_study_in_which_everything_failed_still_has_a_report() -> None:
    rows, runs = simulate(ARMS[4:5], n_edits=3, n_intrinsic=3, generator=np.random.default_rng(0))
    for left in (rows, rows.iloc[:0]):
        page = page_for(left, runs, {}, {})
        assert "This study cannot say" in page
        assert "The loss became nan" in page


def test_it_says_how_edits_were_made_and_what_was_dropped(study: Tables) -> None:
    rows, runs = study
    runs = runs.assign(
        edit="layers 3, 4; 400 bystanders preserved with weight 10", dropped=3, dropped_reasons='{"names both": 3}'
    )
    page = page_for(rows, runs, {}, {})
    compared = page[page.index('id="compared"') : page.index('id="failures"')]
    lines = {re.sub(r"<[^>]+>", "|", line) for line in compared.splitlines() if line.startswith("<tr>")}
    memit = next(line for line in lines if "|memit|" in line.replace("||", "|")[:8])
    assert "400 bystanders preserved with weight 10" in memit
    assert "6 (names both 6)" in memit  # two seeds
    control = next(line for line in lines if "control" in line)
    assert "bystanders" not in control and "6 (names both 6)" in control


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        *((0.0, "0%"), (1.0, "100%"), (0.996, "99.6%"), (0.9999, "99.9%"), (0.004, "0.4%"), (0.625, "63%")),
        *((None, "–"), (-0.196, "−20%"), (-0.004, "−0.4%"), (1.004, "100.4%"), (1.2, "120%")),  # noqa: RUF001
    ],
)
def test_none_and_all_are_said_only_of_none_and_all(rate: float | None, shown: str) -> None:
    assert percent(rate) == shown


def test_an_interval_that_misses_zero_does_not_seem_to_touch_it() -> None:
    assert points_with_interval(0.2, 0.0002, 0.4) == "+20 [+0.1, +40]"
    assert points(0.3 - 0.1 - 0.2) == "0"


def line(
    arm: str, edited: float, intrinsic: float, low: float | None, high: float | None, **more: Any
) -> dict[str, Any]:
    """A line of a summary; the interval is that of the extra loss."""
    return {
        "arm": arm,
        "editor": "memit",
        "paraphrases": 0,
        "mask": "none",
        "protect": "none",
        "seeds": 3,
        "edit_success": 0.9,
        "retention_edited": edited,
        "retention_intrinsic": intrinsic,
        "retention_paraphrase": None,
        "retention_intrinsic_paraphrase": None,
        "excess_loss": 0.5,
        "excess_loss_low": low,
        "excess_loss_high": high,
        "gap": intrinsic - edited,
        "better": "lower",
        "downstream_before": 3.0,
        "downstream_after": 2.0,
        "reached": None,
    } | more


@pytest.mark.parametrize(
    ("value", "low", "high", "says"),
    [
        (0.5, 0.02, 0.9, "+0.50 [+0.02, +0.90] nats of log-odds more from edits than from {}: edits lose more."),
        (-0.5, -0.9, -0.02, "-0.02] nats of log-odds more from edits than from {}: edits lose less."),
        (0.05, -0.1, 0.18, "{}: they lose alike, to within 0.2 nats."),
        (-0.2, -0.5, 0.18, "{}: edits do not lose more by 0.2 nats or above."),
        (0.5, -0.1, 1.1, "{}, which shows neither a difference nor its absence."),
        (0.5, None, None, "{}, on too few facts to give an interval."),
    ],
)
def test_the_words_follow_the_interval(value: float, low: float | None, high: float | None, says: str) -> None:
    said = verdict([line("memit", 0.5, 0.7, low, high, excess_loss=value)])
    assert said.answer.startswith("At equal start, fine-tuning took ")
    assert said.answer.replace(MINUS, "-").endswith(says.format("intrinsic facts held as firmly"))
    kept = "Of the edits that worked before fine-tuning 50% still worked after it; of the intrinsic facts, 70%."
    assert said.detail == kept


def test_what_was_kept_of_other_wordings_is_said_of_both_sets() -> None:
    wordings = {"retention_paraphrase": 0.54, "retention_intrinsic_paraphrase": 0.6}
    said = verdict([line("memit", 0.5, 0.7, 0.1, 0.9, **wordings)]).detail
    assert said.endswith("In held-out wordings: 54% of the edits, 60% of the intrinsic facts.")


def test_no_answer_is_given_where_starts_hardly_overlap() -> None:
    said = verdict([line("memit", 0.5, 0.7, None, None, excess_loss=None)]).answer
    assert said.startswith("This study cannot say whether edits lose more") and "too few edits that worked" in said


def test_the_plain_arm_speaks_for_a_study_of_several() -> None:
    """Means over frozen and unfrozen edits would be neither's."""
    arms = [line("frozen", 0.9, 0.9, -0.1, 0.1, mask="head"), line("a", 0.5, 0.7, 0.1, 0.9)]
    said = verdict([*arms, line("p", 0.8, 0.7, 0.2, 0.9, paraphrases=3)])
    assert said.answer.startswith("At equal start (a), fine-tuning took +0.50 [+0.10, +0.90]")
    assert said.answer.endswith("edits lose more.")
    assert said.detail.startswith("Of the edits that worked before fine-tuning 50% still worked")
    assert said.detail.endswith("At equal start edits lost more in 2 of 3 arms; in the other 1 this study cannot tell.")


def test_unlike_arms_have_no_one_answer() -> None:
    arms = [line("a", 0.5, 0.7, 0.1, 0.3), line("b", 0.9, 0.7, -0.3, -0.1), line("c", 0.7, 0.7, -0.1, 0.1)]
    said = verdict(arms)
    assert said.answer.startswith("These 3 arms are unlike, and have no one answer.")
    assert "lost more in 1 and less in 1 of 3 arms; in the other 1 this study cannot tell" in said.answer
    assert "between 50% (a) and 90% (b)" in said.detail


def test_a_small_dose_is_said_beside_the_answer() -> None:
    control = line("control", 0.0, 0.95, None, None, editor="none", gap=None, edit_success=None)
    cautions = verdict([line("a", 0.9, 0.9, -0.1, 0.1), control]).cautions
    assert any("less than the 10% that tuning should cost" in caution for caution in cautions)
    strained = verdict([line("a", 0.9, 0.9, -0.1, 0.1), control | {"retention_intrinsic": 0.7}]).cautions
    assert not any("so small a dose" in caution for caution in strained)


def test_what_weakens_an_answer_is_said() -> None:
    published = with_unlike_criteria(verdict([line("a", 0.9, 0.9, -0.1, 0.1)])).cautions
    assert "two criteria" in published[0] and "compared at equal start" in published[0]
    one_seed = verdict([line("a", 0.5, 1.0, 0.3, 0.6, seeds=1, edit_success=0.25, downstream_after=3.5)])
    cautions = " ".join(one_seed.cautions)
    for words in ("one seed", "did not improve", "how firmly it was held"):
        assert words in cautions
    assert "equal utility" not in cautions
    short = verdict([line("a", 0.5, 0.7, 0, 1, reached=False), line("b", 0.5, 0.7, 0, 1, reached=True)]).cautions
    assert any("equal utility: a." in caution for caution in short)
    uneven = verdict([line("a", 0.5, 0.7, 0, 1, seeds=1), line("b", 0.5, 0.7, 0, 1)]).cautions
    assert any("of those that all have: a 1, b 3." in caution for caution in uneven)
    risen = line("a", 0.5, 0.7, 0, 1, better="higher", downstream_after=3.5)
    assert not any("did not improve" in caution for caution in verdict([risen]).cautions)
    assert "Few of the edits had worked to begin with; retention speaks of those alone: a (25%)." in cautions
    assert not any("one seed" in caution for caution in verdict([line("a", 0.5, 0.7, 0, 1)]).cautions)


def test_a_transcript_shows_what_was_lost_first(study: Tables) -> None:
    rows, _ = study
    lines = transcript(rows[rows["arm"] == "memit"])
    assert len(lines) == 2 * (8 + 12)
    edited = lines.loc[lines["fact_set"] == "edited", "outcome"].tolist()
    assert edited == sorted(edited, key=["lost", "kept", "gained", "never worked"].index)
    lost = lines.iloc[0]
    assert lost["outcome"] == "lost" and lost["base_says"] and lost["edited_says"] and lost["tuned_says"]
    assert [lost[f"{phase}_success"] for phase in ("base", "edited", "tuned")] == [False, True, False]
    assert re.fullmatch(r"[0-2]/2 → [0-2]/2", lost["held_out_wordings"])
    control = transcript(rows[rows["arm"] == "control"])
    assert set(control["fact_set"]) == {"intrinsic"}
    assert all(said is None for said in control["edited_says"])


def test_long_answers_are_cut_to_one_line() -> None:
    assert shorten(" Paris,\n  which ") == "Paris, which"
    assert len(shorten("word " * 60)) <= 72 and shorten("word " * 60).endswith("…")
