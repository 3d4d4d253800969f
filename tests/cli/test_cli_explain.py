"""``indelible explain`` on a taught tiny model that was edited and then changed a good deal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from command_line import said
from transformers import AutoModelForCausalLM, AutoTokenizer

from indelible.cli.main import main
from indelible.why.shares import LABELS, shares
from tiny_models import build_model, build_tokenizer
from tiny_studies import taught_facts

NEW = 6
GROUPS = ["below", "projections", "beside", "above", "head"]


def changed(folder: Path, out: Path, by: float, *begins: str) -> Path:
    """A copy of a model, each of whose parameters has moved."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(begins or ("",)):
                weight.add_(by * weight.std() * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    return out


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
    changed(folder / "edited", folder / "tuned", 0.7)
    return folder


def explain(capsys: pytest.CaptureFixture[str], arguments: Sequence[Any], code: int = 0) -> str:
    return said(capsys, ["explain", *arguments], code)


def usual(made: Path, edited: Path | None = None) -> list[Any]:
    return [edited or made / "edited", made / "tuned", "--edit", made / "delta", "--intrinsic", made / "known.jsonl"]


def test_shares_add_up_to_what_was_lost(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(explain(capsys, [*usual(made), "--mask-forecast", "--json", "-o", tmp_path / "out"]))
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


def test_the_base_model_takes_the_delta(made: Path, taught: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (
        json.loads(explain(capsys, [*usual(made, edited), "--json"])) for edited in (None, taught / "model")
    )
    assert first == second


def test_tables_are_printed(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = explain(capsys, [*usual(made), "--mask-forecast"])
    assert f"edited facts: {NEW} of {NEW} before tuning" in shown
    for words in (*(LABELS[group] for group in GROUPS), "all of them", "tuned W, edited k", "up-to-edited"):
        assert words in shown
    assert "the state that the head reads" in shown
    assert "freeze mask" not in explain(capsys, usual(made))


def test_only_the_given_facts_are_asked(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = tmp_path / "some.jsonl"
    some.write_text("".join((made / "facts.jsonl").read_text(encoding="utf-8").splitlines(True)[:2]), encoding="utf-8")
    found = json.loads(explain(capsys, [*usual(made), "--facts", some, "--json"]))
    assert found["retention"]["edited"]["facts"] == 2


def test_a_group_that_tuning_left_alone_has_no_line(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(made / "edited", tmp_path / "tuned", 0.5, "lm_head.")
    arguments = [made / "edited", tmp_path / "tuned", "--edit", made / "delta", "--intrinsic", made / "known.jsonl"]
    found = json.loads(explain(capsys, [*arguments, "--json"]))
    assert {line["group"] for line in found["shares"]} == {"head"}


def test_edits_in_the_context_are_put_in_place(
    made: Path, taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, delta = str(taught / "model"), str(tmp_path / "ike")
    edit = ["edit", model, "--facts", str(made / "facts.jsonl"), "--limit", "4", "--editor", "ike", "-o", delta]
    assert main([*edit, "--set", "copies=1", "--no-exam"]) == 0
    # So small a model copies nothing out of its context: it is asked for what it says anyway.
    anyway = tmp_path / "anyway.jsonl"
    rows = [{**row, "true_object": "gold", "new_object": row["true_object"]} for row in taught_facts()[NEW:]]
    anyway.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    changed(taught / "model", tmp_path / "tuned", 0.7)
    arguments = [model, tmp_path / "tuned", "--edit", delta, "--intrinsic", made / "known.jsonl", "--facts", anyway]
    shown = explain(capsys, [*arguments, "--mask-forecast"])
    assert LABELS["layers"] in shown and LABELS["projections"] not in shown
    assert "tuned W, edited k" not in shown and "the state that the head reads" in shown
    assert "up-to-edited" not in shown


def test_what_cannot_be_explained_is_said_in_one_line(
    made: Path, taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = ["--edit", made / "delta", "--intrinsic", made / "known.jsonl"]
    same = explain(capsys, [made / "edited", made / "edited", *rest], 2)
    assert "Tuning changed no weight" in same
    tokenizer = build_tokenizer(pad="<|pad|>")
    for name, family, width, expected in (
        ("wide", "llama", 32, "does not fit the edited model"),
        ("other", "gpt_neox", 48, "has no 'model.embed_tokens.weight'"),
    ):
        build_model(family, len(tokenizer), layers=3, width=width).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        assert expected in explain(capsys, [made / "edited", tmp_path / name, *rest], 2)
    assert "holds the delta neither" in explain(capsys, [made / "tuned", made / "edited", *rest], 2)
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text(
        "".join(json.dumps({**row, "new_object": "gold"}) + "\n" for row in taught_facts()[:NEW]), encoding="utf-8"
    )
    assert f"None of the {NEW} edited facts succeeds" in explain(capsys, [*usual(made), "--facts", wrong], 2)
    assert "has no new object" in explain(capsys, [*usual(made), "--facts", made / "known.jsonl"], 2)
    assert "is a file" in explain(capsys, [*usual(made), "-o", wrong], 2)
    assert "is a folder, not a delta" in explain(capsys, [made / "edited", made / "tuned", "--edit", tmp_path], 2)


def test_without_a_file_the_models_own_knowledge_is_asked(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from indelible.facts import world
    from indelible.facts.read import read_facts

    monkeypatch.setattr(world, "world_facts", lambda: list(read_facts(made / "known.jsonl").facts))
    given = json.loads(explain(capsys, [*usual(made), "--json"]))
    found = json.loads(explain(capsys, [made / "edited", made / "tuned", "--edit", made / "delta", "--json"]))
    # Only what the edited model knows is asked, and nothing about an edited subject.
    counts = found["retention"]["intrinsic"]
    assert counts["facts"] == counts["edited"] <= given["retention"]["intrinsic"]["edited"]
    assert found["retention"]["edited"] == given["retention"]["edited"]
