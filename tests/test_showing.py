"""What came from outside and is shown: cut, without power over terminals and spreadsheets."""

from __future__ import annotations

import json
import unicodedata

import pytest

from indelible.errors import FactsError, UnknownNameError
from indelible.showing import GAP, LONGEST_MESSAGE, cut, no_formula, visible


def test_a_message_is_no_longer_than_one_can_read_and_keeps_both_ends() -> None:
    error = FactsError("The line " + "x" * 10**6 + " is no fact.", "Mend it.")
    assert len(error.what) == LONGEST_MESSAGE and GAP in error.what
    assert str(error).startswith("The line xxx") and str(error).endswith("xxx is no fact. Mend it.")
    assert cut("x" * 60, 60) == "x" * 60 and len(cut("x" * 61, 60)) == 60


def test_of_many_known_names_some_are_told() -> None:
    message = str(UnknownNameError("relation", "??", [f"relation{number}" for number in range(3_000)]))
    assert "relation0, relation1, " in message and message.endswith("and 2,980 more.") and len(message) < 500


def test_no_control_character_is_left_and_json_reads_back_what_was_there() -> None:
    controls = "".join(map(chr, (*range(32), *range(127, 160), 0x202E, 0x2066)))
    assert visible("runs/\udc80") == "runs/\\udc80"
    shown = visible(f"é中{controls}")
    assert shown.startswith("é中") and {one for one in shown if unicodedata.category(one) in ("Cc", "Cf")} == {*"\t\n"}
    assert json.loads(visible(json.dumps("a\x1b[2J\x9b\x7f", ensure_ascii=False))) == "a\x1b[2J\x9b\x7f"


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1"])  # noqa: RUF001
def test_what_a_spreadsheet_would_run_is_text(cell: str) -> None:
    assert no_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-0.5", "+2e-3", "-12%", "a=b", "–", "", 3, None])  # noqa: RUF001
def test_other_cells_stay_as_they_are(cell: object) -> None:
    assert no_formula(cell) == cell
