"""``indelible explain`` on a taught tiny model that was edited and then changed a good deal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from command_line import Said
from delta_files import trained

from indelible.cli.main import main
from indelible.why.shares import LABELS, shares
from tiny_models import build_model, build_tokenizer
from tiny_studies import taught_facts

NEW = 6
GROUPS = ["below", "projections", "beside", "above", "head"]


@pytest.fixture(scope="module")
def made(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``facts.jsonl``, ``delta``, ``edited``, ``tuned``, and ``known.jsonl``, taught and not edited."""
    folder = tmp_path_factory.mktemp("explain")
    rows = taught_facts()
    for name, part in (("facts", rows[:NEW]), ("known", rows[NEW:])):
        lines = [json.dumps(row if name == "facts" else {**row, "new_object": None}) + "\n" for row in part]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    model = str(taught / "model")
    arguments = ["edit", model, "--facts", str(folder / "facts.jsonl"), "--editor", "ft-m", "-o", str(folder / "delta")]
    assert main([*arguments, "--set", "steps=60", "--set", "learning_rate=0.01", "--no-exam"]) == 0
    assert main(["apply", model, str(folder / "delta"), "-o", str(folder / "edited")]) == 0
    trained(folder / "edited", folder / "tuned", 0.7)
    return folder


@pytest.fixture
def explain(said: Said) -> Said:
    return lambda arguments, code=0: said(["explain", *arguments], code)


def usual(made: Path, edited: Path | None = None) -> list[Any]:
    return [edited or made / "edited", made / "tuned", "--edit", made / "delta", "--intrinsic", made / "known.jsonl"]


def test_shares_add_up_to_what_was_lost(made: Path, taught: Path, tmp_path: Path, explain: Said) -> None:
    found = json.loads(explain([*usual(made), "--mask-forecast", "--json", "-o", tmp_path / "out"]))
    assert found["retention"]["edited"]["facts"] == NEW
    for fact_set, counts in found["retention"].items():
        lines = [line for line in found["shares"] if line["fact_set"] == fact_set]
        assert [line["group"] for line in lines] == GROUPS
        assert 0 < counts["tuned"] < counts["edited"]
        assert sum(line["share"] for line in lines) == pytest.approx(1 - counts["tuned"] / counts["edited"])
    edited = found["retention"]["edited"]
    masks = {line["mask"]: line for line in found["masks"]}
    assert masks["none"]["retention_edited"] == edited["tuned"] / edited["edited"] and masks["none"]["gain"] == 0
    assert {"edited-weights", "edited-layers", "up-to-edited", "from-edited"} <= masks.keys()
    mixtures = pd.read_parquet(tmp_path / "out" / "mixtures.parquet")
    assert shares(mixtures)["share"].tolist() == pytest.approx([line["share"] for line in found["shares"]])
    drift = pd.read_parquet(tmp_path / "out" / "drift.parquet")
    means = drift.groupby("quantity")["cosine"].mean()
    shown = {line["quantity"]: line["cosine"] for line in found["drift"]}
    assert shown["state"] == pytest.approx(means["state"]) and shown["key"] < 1
    from_the_base = explain([*usual(made, taught / "model"), "--mask-forecast", "--json"])
    assert json.loads(from_the_base) == found, "the base model takes the delta"


def test_tables_are_printed(made: Path, explain: Said) -> None:
    shown = explain([*usual(made), "--mask-forecast"])
    assert f"edited facts: {NEW} of {NEW} before tuning" in shown
    for words in (*(LABELS[group] for group in GROUPS), "all of them", "tuned W, edited k", "up-to-edited"):
        assert words in shown
    assert "the state that the head reads" in shown
    assert "freeze mask" not in explain(usual(made))


def test_what_it_costs_is_said_before(made: Path, tmp_path: Path, explain: Said) -> None:
    shown = explain([*usual(made), "--dry-run", "-o", tmp_path / "out"])
    assert shown.startswith(f"Cost: 32 mixtures of weights, {len(taught_facts())} questions each; ")
    assert not (tmp_path / "out").exists()


def test_only_the_given_facts_are_asked(made: Path, tmp_path: Path, explain: Said) -> None:
    some = tmp_path / "some.jsonl"
    some.write_text("".join((made / "facts.jsonl").read_text(encoding="utf-8").splitlines(True)[:2]), encoding="utf-8")
    found = json.loads(explain([*usual(made), "--facts", some, "--json"]))
    assert found["retention"]["edited"]["facts"] == 2


def test_what_cannot_be_explained_is_said_in_one_line(made: Path, taught: Path, tmp_path: Path, explain: Said) -> None:
    rest = ["--edit", made / "delta", "--intrinsic", made / "known.jsonl"]
    same = explain([made / "edited", made / "edited", *rest], 2)
    assert "Tuning changed no weight" in same
    tokenizer = build_tokenizer(pad="<|pad|>")
    for name, family, width, expected in (
        ("wide", "llama", 32, "does not fit the edited model"),
        ("other", "gpt_neox", 48, "has no 'model.embed_tokens.weight'"),
    ):
        build_model(family, len(tokenizer), layers=3, width=width).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        assert expected in explain([made / "edited", tmp_path / name, *rest], 2)
    assert "holds the delta neither" in explain([made / "tuned", made / "edited", *rest], 2)
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text(
        "".join(json.dumps({**row, "new_object": "gold"}) + "\n" for row in taught_facts()[:NEW]), encoding="utf-8"
    )
    assert f"None of the {NEW} edited facts succeeds" in explain([*usual(made), "--facts", wrong], 2)
    assert "has no new object" in explain([*usual(made), "--facts", made / "known.jsonl"], 2)
    assert "is a file" in explain([*usual(made), "-o", wrong], 2)
    assert "is a folder, not a delta" in explain([made / "edited", made / "tuned", "--edit", tmp_path], 2)


def test_without_a_file_the_models_own_knowledge_is_asked(
    made: Path, explain: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    from indelible.facts import world
    from indelible.facts.read import read_facts

    monkeypatch.setattr(world, "world_facts", lambda: list(read_facts(made / "known.jsonl").facts))
    given = json.loads(explain([*usual(made), "--json"]))
    found = json.loads(explain([made / "edited", made / "tuned", "--edit", made / "delta", "--json"]))
    # Only what the edited model knows is asked, and nothing about an edited subject.
    counts = found["retention"]["intrinsic"]
    assert counts["facts"] == counts["edited"] <= given["retention"]["intrinsic"]["edited"]
    assert found["retention"]["edited"] == given["retention"]["edited"]
