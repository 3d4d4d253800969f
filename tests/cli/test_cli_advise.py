"""``indelible advise``: what it would do, and what it refuses; a pilot itself is run in tests/study/test_advice.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Said

from tiny_studies import taught_facts


@pytest.fixture
def typed(taught: Path, tmp_path: Path) -> list[str]:
    lines = "".join(json.dumps({"text": f"It rains {one} days in Spain."}) + "\n" for one in range(200))
    (tmp_path / "data.jsonl").write_text(lines, encoding="utf-8")
    facts = [{**row, "new_object": None} if row["relation"] == "language" else row for row in taught_facts()]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in facts), encoding="utf-8")
    given = {"facts": tmp_path / "facts.jsonl", "data": tmp_path / "data.jsonl", "out": tmp_path / "run"}
    options = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    return ["advise", str(taught / "model"), *options, "--editor", "ft-m", "--protect", "near", "--protect", "replay"]


def test_a_dry_run_names_candidates_and_cost_and_writes_nothing(typed: list[str], tmp_path: Path, said: Said) -> None:
    shown = said([*typed, "--dry-run", "--set", "facts.n_edits=5"])
    assert "near, replay" in shown and "5 edits of 12" in shown and "runs of tuning" in shown
    found = json.loads(said([*typed, "--dry-run", "--json", "--minutes", "1000"]))
    assert (
        found["candidates"] == {"near": {"protect": "near"}, "replay": {"protect": "replay"}} and found["seconds"] > 0
    )
    assert found["size"] == {"edits": 12, "steps": 18, "seeds": 3}  # 200 rows less 50 held out, 8 a step
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (["--minutes", "1e-5"], "1e-05 minutes do not suffice"),
        (["--minutes", "0"], "0 minutes are no time"),
        (["--price", "-1"], "The price -1 cannot be paid"),
        (["--protect", "nearer"], "Unknown protection 'nearer'"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--facts", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--delta", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_used_is_named(typed: list[str], said: Said, more: list[str], what: str) -> None:
    assert what in said([*typed, *more], 2)
