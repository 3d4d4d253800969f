"""Files of facts as the commands take them: what the help says of them, columns of other names, and bad rows."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from command_line import Said

from indelible.cli.main import main
from indelible.cli.options import EXAMPLES
from indelible.edits.deltas.delta import Edit
from indelible.facts.benchmarks import SCHEMAS
from indelible.facts.fact import Fact
from indelible.facts.read import read_facts
from tiny_studies import taught_facts

RENAMED = {"subject": "who", "prompt": "question", "true_object": "was", "new_object": "is"}


def csv_file(path: Path, rows: list[dict[str, Any]], names: dict[str, str] | None = None) -> Path:
    names = names or {name: name for name in RENAMED}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names.values())
        writer.writerows([row[name] for name in names] for row in rows)
    return path


def words(shown: str) -> str:
    return " ".join(shown.replace("│", " ").split())


@pytest.mark.parametrize("command", ["edit", "facts"])
def test_the_help_shows_a_fact_and_every_column(command: str, said: Said) -> None:
    shown = words(said([command, "--help"]))
    assert all(row in shown for row in EXAMPLES)
    for name in (field.name for field in fields(Fact) if field.name != "source"):
        assert name in shown, name
    for name, schema in SCHEMAS.items():
        assert f"{name} ({', '.join(schema.keys)})" in shown
    assert "--column" in shown and "with | between wordings" in shown


def test_the_examples_of_the_help_are_facts(tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text("\n".join(EXAMPLES), encoding="utf-8")
    fact, other = read_facts(tmp_path / "facts.jsonl", strict=True).facts
    assert other.new_object and other.paraphrases
    assert (fact.text(), fact.true_object, fact.new_object) == ("The capital of France is", "Paris", "Rome")


def test_columns_of_other_names_are_mapped(taught: Path, tmp_path: Path, said: Said) -> None:
    file = csv_file(tmp_path / "mine.csv", taught_facts()[:2], RENAMED)
    mapped = [word for field, column in RENAMED.items() for word in ("--column", f"{field}={column}")]
    complaint = said(["facts", "--file", file], 2)
    assert "fit no known schema" in complaint and "--column FIELD=COLUMN" in complaint
    (line, *_) = json.loads(said(["facts", "--file", file, *mapped, "--json"]))
    row = taught_facts()[0]
    assert line["for example"] == f"{row['prompt'].replace('{}', row['subject'])} {row['true_object']}"
    out = tmp_path / "delta"
    made = ["edit", taught / "model", "--facts", file, *mapped, "--editor", "ft-m", "--set", "steps=1", "-o", out]
    said([*made, "--no-exam"])
    (first, _) = Edit.load(out).facts
    assert (first.subject, first.new_object) == (row["subject"], row["new_object"])
    traced = ["locate", taught / "model", "--facts", file, *mapped, "--kind", "hidden", "--samples", 1, "--json"]
    assert json.loads(said([*traced, "-o", tmp_path / "traces"]))["facts"] == 2
    # Both of explain's files are read by the mapping: here only the second lacks a column.
    other = csv_file(tmp_path / "other.csv", taught_facts()[2:4])
    asked = ["explain", taught / "model", taught / "model", "--edit", out, "--facts", file, "--intrinsic", other]
    assert f"{other} has no column 'who' (mapped to subject)" in said([*asked, *mapped], 2)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["true_object"], "--column 'true_object' maps nothing. Write FIELD=COLUMN"),
        (["=was"], "--column '=was' maps nothing"),
        (["true_object=was", "true_object=is"], "maps 'true_object' twice"),
        (["true_objekt=was"], "Did you mean 'true_object'"),
        (["true_object=wass"], "has no column 'wass' (mapped to true_object). Did you mean 'was'"),
    ],
)
def test_columns_that_cannot_be_mapped(columns: list[str], expected: str, tmp_path: Path, said: Said) -> None:
    file = csv_file(tmp_path / "mine.csv", taught_facts()[:2], RENAMED)
    assert expected in said(["facts", "--file", file, *(word for one in columns for word in ("--column", one))], 2)


def test_rows_of_a_benchmark_are_skipped_aloud_and_a_limit_counts_the_others(
    taught: Path, tmp_path: Path, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "flat.jsonl", tmp_path / "delta"
    rows = [
        {"subject": row["subject"], "prompt": row["prompt"], "ground_truth": row["true_object"], "target_new": new}
        for row, new in zip(taught_facts()[:3], ("same", "gold", "iron"), strict=True)
    ]
    rows[0]["target_new"] = rows[0]["ground_truth"]
    file.write_text("".join(json.dumps({**row, "attribute_prompts": ["a"]}) + "\n" for row in rows), encoding="utf-8")
    quick = ["--editor", "ft-m", "--set", "steps=1", "--no-exam", "--limit", 1]
    assert main([str(word) for word in ("edit", taught / "model", "--facts", file, *quick, "-o", out)]) == 0
    told = capsys.readouterr().err
    assert f"{file}: 1 rows skipped, beside 2 facts: line 1: the new object is the true one" in told
    assert "Not used: attribute_prompts (3 rows)." in told
    assert [fact.subject for fact in Edit.load(out).facts] == [rows[1]["subject"]]
    study = tmp_path / "study.yaml"
    arms = "arms: [{name: control, editor: none}]"
    facts = "facts: {source: flat.jsonl, n_edits: 1, n_intrinsic: 1}"
    study.write_text(f"name: mine\nmodel: {taught / 'model'}\n{facts}\n{arms}\n", encoding="utf-8")
    assert "1 rows skipped, beside 2 facts" in said(["study", study, "--dry-run", "--out", tmp_path / "run"])


@pytest.mark.parametrize("layout", [["--schema", "zsre"], ["--column", "true_object=was"]])
def test_a_layout_without_a_file_is_refused(layout: list[str], said: Said) -> None:
    assert "there is none. Give --file" in said(["facts", *layout], 2)


def test_wrong_uses_of_edit_are_one_clear_line(taught: Path, tmp_path: Path, said: Said) -> None:
    rows, model, out = taught_facts()[:2], taught / "model", tmp_path / "out"
    good = csv_file(tmp_path / "good.csv", rows)
    header = csv_file(tmp_path / "header.csv", [])
    old = csv_file(tmp_path / "old.csv", rows, {name: name for name in RENAMED if name != "new_object"})
    (tmp_path / "full.safetensors").write_bytes(b"mine")
    two = csv_file(tmp_path / "two.csv", [rows[0], {**rows[0], "new_object": "Rome"}])
    for facts, editor, more, expected in (
        (good, "none", [], "'none' makes no edit: it is the control of a study. Give one of alphaedit,"),
        (good, "ft-m", ["--set", "stepz=3"], "'stepz'"),
        (good, "ft-m", ["--set", "steps=[1"], "steps=[1"),
        (header, "ft-m", [], f"{header} has no rows"),
        (old, "ft-m", [], "has no new object. Give new_object for every fact"),
        (good, "ft-m", ["--schema", "zsree"], "Did you mean 'zsre'"),
        (good, "ft-m", ["-o", tmp_path / "full"], "full.safetensors is there already"),
        (two, "ft-m", [], "(fact 'two:2') and 'Rome' (fact 'two:3'). Keep one of them."),
    ):
        complaint = said(["edit", model, "--facts", facts, "--editor", editor, "-o", out, *more], 2)
        assert expected in complaint, complaint
    complaint = said(["edit", tmp_path / "gone", "--facts", good, "--editor", "ft-m", "-o", out], 2)
    assert f"There is no model folder '{tmp_path / 'gone'}'" in complaint
    assert not out.with_name("out.safetensors").exists() and (tmp_path / "full.safetensors").read_bytes() == b"mine"


def test_a_bad_row_is_told_without_a_word_of_studies(
    taught: Path, tmp_path: Path, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = taught_facts()[:2]
    file = csv_file(tmp_path / "bad.csv", [first, {**second, "prompt": "The capital is"}])
    arguments = ["edit", taught / "model", "--facts", file, "--editor", "ft-m", "-o", tmp_path / "out"]
    assert main([str(argument) for argument in arguments]) == 2
    row, complaint = capsys.readouterr().err.splitlines()
    assert "line 3: the prompt 'The capital is' does not contain the subject" in row
    assert complaint == f"Error: 1 of 2 rows of {file} cannot be used. Mend or remove them: every row has to be a fact."
    single = csv_file(tmp_path / "single.csv", [{**second, "prompt": "The capital is"}])
    arguments[3] = single
    assert "line 2: the prompt 'The capital is'" in said(arguments, 2)
