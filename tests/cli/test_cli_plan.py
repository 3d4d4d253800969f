"""``indelible plan``: what it prints, as JSON, from a run, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from indelible.cli.main import main
from simulated import answer_row


def test_a_plan_names_the_edits_for_four_in_five(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--gap", "0.1", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    needed = content["edits_for_80_percent"]["3"]
    assert content["plan"] == {
        "gap": 0.1,
        "retention": 0.7,
        "intrinsic_per_edit": 2.5,
        "seeds": 3,
        "spread": 0.03,
    }
    assert {(line["edits"], line["seeds"]) for line in content["power"]} >= {(24, 1), (24, 3), (400, 10)}
    assert main(["plan", "--gap", "0.1"]) == 0
    shown = capsys.readouterr().out
    assert f"With 3 seeds, {needed} working edits per seed" in shown
    assert "for 80%" in shown


def test_without_a_gap_it_says_what_designs_of_several_sizes_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert "power" not in content
    found = {(line["edits"], line["seeds"]): line for line in content["detectable"]}
    small, large = found[24, 3], found[400, 3]
    assert small["extra_loss"] > large["extra_loss"] > 0 and small["gap"] > large["gap"] > 0
    assert main(["plan"]) == 0
    shown = capsys.readouterr().out
    assert f"{small['extra_loss']:.2f}" in shown and f"{small['gap'] * 100:.1f}" in shown


def test_a_run_gives_what_is_not_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pd.DataFrame(
        answer_row(fact_set, str(fact), phase, phase == "edited" or fact % 4 != 0, seed=4)
        for fact_set, facts in (("edited", 8), ("intrinsic", 24))
        for fact in range(facts)
        for phase in ("edited", "tuned")
    )
    rows.to_parquet(tmp_path / "facts.parquet", index=False)
    assert main(["plan", "--gap", "0.2", "--from", str(tmp_path), "--spread", "0.05", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan == {"gap": 0.2, "retention": 0.75, "intrinsic_per_edit": 3.0, "seeds": 1, "spread": 0.05}


def test_a_run_that_kept_everything_is_named_where_it_leaves_no_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.DataFrame(
        answer_row(fact_set, str(fact), phase, True, seed=4)
        for fact_set in ("edited", "intrinsic")
        for fact in range(8)
        for phase in ("edited", "tuned")
    )
    rows.to_parquet(tmp_path / "facts.parquet", index=False)
    assert main(["plan", "--gap", "0.1", "--from", str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"With the 1 of {tmp_path}, --gap 0.1 leaves edits a retention of 0.9. Give a --retention" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--gap", "0"], "--gap 0"),
        (["--gap", "0.8"], "a retention of -0.1"),
        (["--gap", "0.1", "--retention", "70"], "'--retention'"),
        (["--gap", "0.1", "--seeds", "0"], "'--seeds'"),
        (["--gap", "0.1", "--spread", "-1"], "'--spread'"),
        (["--spread", "inf"], "'--spread'"),
        (["--intrinsic-per-edit", "inf"], "'--intrinsic-per-edit'"),
        (["--gap", "0.1", "--from", "nowhere"], "nowhere holds no finished study"),
    ],
)
def test_figures_without_a_study_are_refused(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *options]) == 2
    assert says in capsys.readouterr().err
