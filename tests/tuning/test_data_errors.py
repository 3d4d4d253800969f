"""What is said when something is wrong with users' own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from own_data import QUESTIONS, Write, error_of, task_of
from pydantic import ValidationError

from indelible.errors import ConfigError, UnknownNameError
from indelible.tuning.settings import DataSettings


def test_a_missing_file_is_named_with_its_neighbours(write: Write, tmp_path: Path) -> None:
    write(QUESTIONS, "train.jsonl")
    assert "There is no data file" in (said := error_of(str(tmp_path / "trian.jsonl")))
    assert "Did you mean 'train.jsonl'?" in said
    assert "There is no data file nothere.csv" in error_of("nothere.csv")
    write("x", "notes.docx")
    assert "Give one of .jsonl, .json, .csv, .tsv, .parquet." in error_of(str(tmp_path / "notes.docx"))


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "a.jsonl", "is empty"),
        (" \n\n", "a.csv", "is empty"),
        ("", "a.parquet", "cannot be read as Parquet: Could not open"),
        ("[]", "a.json", "has no rows"),
        ("question,answer\n", "a.csv", "has no rows"),
        (b"\xef\xbb\xbfquestion,answer\na,b\nc,\xe9\n", "a.csv", "is not UTF-8: byte 0xe9 at offset 25 (line 3)"),
        ('{"question": "Q", "answer": "A"}\n{"question": "Q\n', "a.jsonl", ", line 2: not JSON"),
        ('{"question": "Q", "answer": "A"}\n\n17\n', "a.jsonl", ", line 3: is a JSON int, not an object"),
        ('[{"question": "Q",\n "answer": }]', "a.json", ", line 2: not JSON"),
        ('[{"question": "Q"}, "Q"]', "a.json", ", line 1: is a JSON str, not an object"),
        ('{"data": [\n{"question": "Q"}]}', "a.json", ", line 1: not JSON"),
        ("question,answer\nQ,A\nQ,A,B\n", "a.csv", ", line 3: has 3 fields where the header has 2"),
        ("question\tanswer\nQ\n", "a.tsv", ", line 2: has 1 fields where the header has 2"),
        ("question,answer,answer\nQ,A,B\n", "a.csv", ", line 1: two columns are named 'answer'"),
        ('question,answer\nQ,"A\nQ,A\n', "a.csv", ", line 2: not CSV (unexpected end of data)"),
        ('{"question": "\\ud83d"}', "a.jsonl", ", line 1: 'question' has half of a surrogate"),
        ("question,answer\nQ,A\n", "a.parquet", "cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(content: str | bytes, name: str, said: str, write: Write) -> None:
    source = write(content, name)
    assert f"{source}{said if said.startswith(',') else ' ' + said}" in error_of(source)


def test_columns_that_are_not_there_are_named_with_those_that_are(write: Write) -> None:
    source = write([{"qestion": "Q", "reply": "A", "sure": 1}])
    said = error_of(source, columns={"prompt": "question", "answer": "reply"})
    assert "has no column 'question' (mapped to prompt). Its columns are qestion, reply, sure." in said
    assert said.endswith("Did you mean 'qestion'?")
    said = error_of(source, columns={"prompt": "qestion+imput", "answer": "reply"})
    assert "has no column 'imput' (mapped to prompt)" in said
    said = error_of(source, "preference", columns={"prompt": "qestion", "chosen": "reply"})
    assert "is mapped to 'rejected', which the objective needs" in said and "Its columns are" in said
    assert "is mapped to 'answer', which the" in error_of(source, "reward", columns={"prompt": "qestion"})
    for objective, fields in (
        ("text", "text"),
        ("preference", "prompt and chosen and rejected"),
        ("reward", "prompt and answer"),
    ):
        said = error_of(source, objective)
        assert "has no columns with well-known names" in said and said.endswith(f"Map its columns to {fields}.")


@pytest.mark.parametrize(
    ("row", "objective", "said"),
    [
        ({"question": {"text": "Q"}, "answer": "A"}, "reason", "'question': the role None is not one of"),
        ({"question": "Q", "answer": ["A", "B"]}, "reason", "'answer': a message must have a role and a content"),
        ({"text": "T", "label": ["a"]}, "classify", "'label': a list where a text is needed"),
        ({"messages": "just text"}, "instruct", "'messages': no conversation, and no column is mapped to answer"),
        (
            {"messages": [{"role": "wizard", "content": "Hi"}]},
            "instruct",
            "'messages': the role 'wizard' is not one of",
        ),
        ({"messages": [{"role": "user", "content": 3}]}, "instruct", "'messages': the content of a message is 3"),
        (
            {"chosen": "Yes", "rejected": "No"},
            "preference",
            "'chosen': no conversation, and no column is mapped to prompt",
        ),
    ],
)
def test_values_of_the_wrong_kind_are_named_with_row_and_column(
    row: dict[str, Any], objective: str, said: str, write: Write
) -> None:
    source = write([row])
    assert f"{source}, row 1 (line 1), column {said}" in error_of(source, objective)


def test_a_label_outside_the_set_is_named_with_its_row(write: Write) -> None:
    source = write([{"text": "a", "label": "positive"}, {"text": "b", "label": "postive"}])
    said = error_of(source, "classify", labels=("negative", "positive"))
    assert ", row 2 (line 2): the label 'postive' is not among 'negative', 'positive'." in said
    assert "Did you mean 'positive'" in said
    for value in (2, -1, "x"):
        source = write([{"text": "a", "label": 0}, {"text": "b", "label": value}], "b.csv")
        assert f", row 2 (line 3): the label '{value}' is not" in error_of(source, "classify", labels=("no", "yes"))


@pytest.mark.parametrize("count", [1, 60])
def test_a_column_without_labels_is_refused(count: int, write: Write) -> None:
    source = write([{"text": f"t{number}", "label": f"l{number % count}"} for number in range(100)])
    assert f"holds {count} different labels" in error_of(source, "classify")


def test_a_source_without_a_usable_row_is_an_error(write: Write) -> None:
    source = write([{"question": "Q", "answer": None}, {"question": "", "answer": "A"}])
    said = error_of(source)
    assert "has no usable row for objective 'reason': 2 rows left out, 1 without" in said
    unlabelled = write([{"text": "a", "label": None}], "b.jsonl")
    assert "has no usable row for objective 'classify': 1 rows left out, 1 without label" in error_of(
        unlabelled, "classify"
    )


def test_settings_are_checked_where_they_enter(write: Write) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown field of an example 'promt'. Did you mean 'prompt'\?"):
        DataSettings(source="a.csv", columns={"promt": "q"})
    for wrong in ({"labels": ("a",)}, {"labels": ("a", "a")}, {"labels": ("a", " ")}, {"source": ""}, {"file": "x"}):
        with pytest.raises(ValidationError):
            DataSettings(**({"source": "a.csv"} | wrong))
    source = write(QUESTIONS)
    with pytest.raises(ConfigError, match=r"split is 'test', but .* is a file"):
        task_of(source, "reason", split="test")
