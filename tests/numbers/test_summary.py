"""The summary: its keys, its nulls, its arms, and the truth of simulated studies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from indelible.errors import DataError
from indelible.numbers.answers import Answers
from indelible.numbers.summary import summarise
from indelible.numbers.words import MINUS, MISSING, headline
from indelible.report.transcript import transcript
from simulated import ARMS, Tables, simulate

KEYS = [
    "arm", "editor", "paraphrases", "objective", "tuner", "mask", "protect", "seeds", "n_edits", "n_intrinsic",
    "edit_success",
    "edit_success_first_token", "paraphrase_success", "locality", "damage", "damage_low", "damage_high",
    "excess_loss", "excess_loss_low", "excess_loss_high",
    "retention_edited", "retention_intrinsic", "lead", "lead_low", "lead_high",
    "figure", "better", "downstream_before", "downstream_after", "reached", "seconds", "gap", "gap_low", "gap_high",
    "retention_paraphrase", "retention_intrinsic_paraphrase", "retention_intrinsic_base",
    "retention_edited_first_token", "retention_neighbour", "durability", "durability_low", "durability_high",
    "durability_paraphrase", "durability_paraphrase_low", "durability_paraphrase_high",
    "durability_intrinsic", "durability_intrinsic_low", "durability_intrinsic_high",
]  # fmt: skip
AFTER_TUNING = {key for key in KEYS if key.startswith(("retention", "gap", "lead", "excess", "durability"))}
OF_EDITS_ALONE = ("edit_", "paraphrase_", "locality", "damage", "gap", "lead", "excess", "durability")
OF_EDITS = {
    *(key for key in KEYS if key.startswith(OF_EDITS_ALONE)),
    *("retention_edited", "retention_paraphrase", "retention_edited_first_token", "retention_neighbour"),
}


@pytest.fixture(scope="module")
def study() -> Tables:
    return simulate(seeds=(0, 1), generator=np.random.default_rng(0))


def test_one_line_per_arm_with_exactly_the_keys(study: Tables) -> None:
    summary = summarise(Answers(study[0], draws=200), study[1])
    assert [line["arm"] for line in summary] == [arm.name for arm in ARMS]
    assert all(list(line) == KEYS for line in summary)


def test_it_is_plain_json_without_nan(study: Tables) -> None:
    summary = summarise(Answers(study[0], draws=200), study[1])
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert {type(value) for line in summary for value in line.values()} <= {str, int, float, type(None)}
    memit = summary[0]
    assert (memit["seeds"], memit["n_edits"], memit["n_intrinsic"], memit["paraphrases"]) == (2, 24, 60, 0)
    assert (memit["downstream_before"], memit["seconds"]) == (pytest.approx(3.412), 262.0)


def test_the_control_and_a_failed_arm_have_nulls_where_nothing_applies(
    study: Tables,
) -> None:
    by_arm = {line["arm"]: line for line in summarise(Answers(study[0], draws=200), study[1])}
    nulls = {arm: {key for key, value in line.items() if value is None} for arm, line in by_arm.items()}
    control, failed = by_arm["control"], by_arm["ft, high rate"]
    assert nulls["control"] == OF_EDITS | {"reached"} and control["n_edits"] == 0
    assert control["retention_intrinsic"] == control["retention_intrinsic_base"]
    assert nulls["ft, high rate"] == AFTER_TUNING | {"downstream_after", "reached"} and failed["seeds"] == 0


def test_an_arm_without_any_rows_keeps_its_line(study: Tables) -> None:
    rows, runs = study
    line = summarise(Answers(rows[rows["arm"] != "ft"], draws=50), runs)[3]
    assert (line["arm"], line["n_edits"], line["edit_success"], line["editor"]) == ("ft", None, None, "ft")


def test_neither_the_order_of_rows_nor_other_arms_matter(study: Tables) -> None:
    rows, runs = study
    summary = summarise(Answers(rows, draws=300, seed=5), runs)
    assert summarise(Answers(rows.sample(frac=1, random_state=1), draws=300, seed=5), runs) == summary
    alone = summarise(Answers(rows[rows["arm"] == "ft"], draws=300, seed=5), runs[runs["arm"] == "ft"])
    assert len(alone) == 1 and alone[0] == pytest.approx(summary[3])  # sums of other lengths round otherwise
    assert summarise(Answers(rows, draws=300, seed=6), runs)[0]["gap_low"] != summary[0]["gap_low"]


def test_one_failed_seed_leaves_the_figures_of_the_others(study: Tables) -> None:
    rows, runs = study
    lost = (rows["seed"] == 1) & rows["phase"].isin(["tuning", "tuned"])
    runs = runs.assign(
        status=np.where(runs["seed"] == 1, "failed", runs["status"]),
        downstream_after=runs["downstream_after"].where(runs["seed"] == 0),
    )
    line = summarise(Answers(rows[~lost], draws=200), runs)[0]
    assert line["seeds"] == 1
    assert line["downstream_after"] == pytest.approx(2.871)
    first = (rows["seed"] == 0) & (rows["arm"] == "memit")
    assert line["retention_edited"] == summarise(Answers(rows[first], draws=200), runs.iloc[:1])[0]["retention_edited"]


def test_tables_read_back_from_parquet_give_the_same_and_categories_do_not_multiply(
    study: Tables, tmp_path: Path
) -> None:
    """Columns of few values may come as categories, whose absent combinations must not become facts."""
    rows, runs = study
    texts = ["arm", "editor", "phase", "fact_set", "fact_id", "kind", "prompt", "generated"]
    packed = rows.astype(dict.fromkeys(texts, "category"))
    packed.to_parquet(tmp_path / "rows.parquet")
    runs.to_parquet(tmp_path / "runs.parquet")
    read, of_runs = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("rows", "runs"))
    assert isinstance(read["arm"].dtype, pd.CategoricalDtype)
    assert summarise(Answers(read, draws=100), of_runs) == summarise(Answers(rows, draws=100), runs)
    arm = read["arm"] == "memit"
    assert transcript(read[arm]).equals(transcript(rows[arm]))


def test_a_run_table_that_lacks_a_column_is_an_error(study: Tables) -> None:
    with pytest.raises(DataError, match="table of runs lacks the column status"):
        summarise(Answers(study[0]), study[1].drop(columns="status"))


def test_the_headline_shows_one_row_per_arm(study: Tables) -> None:
    line = dict.fromkeys(KEYS) | {"arm": "memit", "editor": "memit", "figure": "loss", "downstream_before": 3.4125}
    line |= {"edit_success": 0.958, "retention_edited": 0.125, "seconds": 131.4}
    line |= {"lead": -0.154, "lead_low": -0.3, "lead_high": 0.002}
    line |= {"damage": 0.03, "damage_low": 0.01, "damage_high": 0.07}
    columns, (row,) = headline([line])
    assert dict(zip(columns, row, strict=True)) == {
        "arm": "memit",
        "editor": "memit",
        "edit success": "96%",
        "first token": MISSING,
        "paraphrases": MISSING,
        "locality": MISSING,
        "lost to the edit": "3% [1%, 7%]",
        "extra loss of edits, nats [95%]": MISSING,
        "edited kept": "13%",
        "intrinsic kept": MISSING,
        f"edits {MINUS} intrinsic, points [95%]": f"{MINUS}15 [{MINUS}30, +0.2]",
        "downstream": f"loss 3.41 → {MISSING}",
        "time": "2 min 11 s",
    }
    assert len(headline(summarise(Answers(study[0], draws=50), study[1]))[1]) == len(ARMS)
