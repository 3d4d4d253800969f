"""A measure is one entry: added to the table, it shows wherever it says that it does."""

from __future__ import annotations

import numpy as np
import pytest

from indelible.claims.claim import Claim, Comparison
from indelible.claims.judge import judge
from indelible.numbers.answers import Answers
from indelible.numbers.curves import retention_curves
from indelible.numbers.measures import MEASURES, Combination, Rate, add
from indelible.numbers.summary import effects_table, summarise
from indelible.numbers.words import headline
from indelible.report.exhibit import Grid, Words, shown, walk
from indelible.report.run import Run
from simulated import ARMS, simulate


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MEASURES, "_entries", dict(MEASURES._entries))
    places = ("summary", "headline", "curves", "effects", "claims")
    add(Rate("toy_rate", "toys kept", "edited", "neighbour", "tuned", "base", shows=places))
    gap = {"retention_neighbour": 1.0, "toy_rate": -1.0}
    add(Combination("toy_gap", "toy gap", gap, differences=True, shows=("summary", "headline", "effects", "claims")))


def test_an_entry_is_all_that_a_measure_needs(toys: None) -> None:
    rows, runs = simulate(ARMS[:2], generator=np.random.default_rng(0))
    answers = Answers(rows, draws=200)
    summary = summarise(answers, runs)
    hits = rows[(rows["arm"] == "memit") & (rows["kind"] == "neighbour")].pivot_table(
        index=["fact_id", "wording"], columns="phase", values="success", aggfunc="last"
    )
    kept = hits.loc[hits["base"] == 1, "tuned"].mean()
    assert summary[0]["toy_rate"] == pytest.approx(kept)
    assert (
        summary[0]["toy_gap_low"] < summary[0]["toy_gap"] == summary[0]["retention_neighbour"] - summary[0]["toy_rate"]
    )
    columns, _ = headline(summary)
    assert "toys kept" in columns and "toy gap, points [95%]" in columns
    effects = effects_table(answers, runs)
    assert {"toy_rate", "toy_gap"} <= set(effects["measure"]) & set(effects.loc[effects["versus"].notna(), "measure"])
    curve = retention_curves(answers, "memit")["toy_rate"]
    assert curve[40].value == summary[0]["toy_rate"]
    assert curve[0].value == summary[0]["locality"] < 1  # of what the edit damaged nothing is left to lose
    doses = Comparison(factor="paraphrases", of=(3,), against=0)
    claims = [
        Claim(name="toy", sentence="Toys last.", estimate="toy_rate", compare=doses),
        Claim(name="gap", sentence="There is a toy gap.", estimate="toy_gap"),
    ]
    assert [len(ruling.findings) for ruling in judge(claims, answers, runs)] == [1, 1, 1]


def test_a_curve_is_of_what_its_measure_asks_about(toys: None) -> None:
    add(Rate("all", "toys known", "edited", "paraphrase", "tuned", shows=("summary", "curves", "headline")))
    add(Rate("early", "toys edited", "edited", "paraphrase", "edited", shows=("curves", "headline")))
    rows, runs = simulate(ARMS[:1], generator=np.random.default_rng(0))
    run = Run("run", Answers(rows, draws=50), runs)
    curve = retention_curves(run.answers, "memit")
    assert "early" not in curve  # nothing that tuning moves
    assert curve["all"][40].value == run.summary[0]["all"]
    assert curve["all"][0].value == run.summary[0]["paraphrase_success"]
    words = [part.text for part in shown(run) if isinstance(part, Words)]
    assert any(" toys kept: of those that succeeded in base. toys known: of all." in text for text in words)
    assert any("locality, lost to the edit and toys edited are measured before tuning" in text for text in words)
    grids = [part for part in walk(shown(run)) if isinstance(part, Grid) and part.file == "curves"]
    assert {"toys kept", "toys known", "edited facts"} <= set(grids[0].frame.columns)
