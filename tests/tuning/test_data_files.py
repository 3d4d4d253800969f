"""Users' own data: every form of file and of columns."""

from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from own_data import QUESTIONS, Write, examples_of, task_of

from indelible.errors import DataError
from indelible.tuning.own_data.sources import data_version
from indelible.tuning.settings import DataSettings
from indelible.tuning.task import Example

FORMS = ["a.jsonl", "a.json", "lines.json", "compact.json", "a.csv", "A.CSV", "a.tsv", "a.parquet"]


@pytest.mark.parametrize("name", FORMS)
def test_every_kind_of_file_is_read(name: str, write: Write) -> None:
    content: Any = QUESTIONS
    if name == "lines.json":
        content = "\ufeff" + "\n\n".join(map(json.dumps, QUESTIONS))
    elif name == "compact.json":
        content = json.dumps(QUESTIONS)
    elif name == "A.CSV":
        content = "\ufeffquestion, answer\r\n" + "".join(f"{row['question']},{row['answer']}\r\n" for row in QUESTIONS)
    task = task_of(write(content, name), "reason")
    assert sorted(example.answer for example in task(0)) == ["1", "2", "3", "4", "5", "6"]
    assert {example.prompt for example in task(0)} == {f"What is {number} + 1?\nAnswer:" for number in range(6)}
    assert task.origin.endswith("6 examples from columns {prompt: question, answer: answer} (guessed)")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_texts_stay_as_they_were_written(name: str, write: Write) -> None:
    rows = [{"question": "Which day?", "answer": "2024-05-01"}, {"question": "007" * 70_000, "answer": "1e3"}]
    assert {example.answer for example in examples_of(write(rows, name), "instruct")} == {"2024-05-01", "1e3"}
    assert max(len(example.prompt) for example in examples_of(write(rows, name), "instruct")) == 210_000


def test_streams_follow_from_the_seed_and_keep_groups_together(write: Write) -> None:
    rows = [{"body": f"text {number}", "from": f"d{number % 3}" if number < 30 else None} for number in range(40)]
    task = task_of(write(rows), "text", columns={"text": "body", "group": "from"})
    first = list(task(1))
    assert first == list(task(1)) != list(task(2))
    assert len(first) == 40, "a row without a group stands alone"
    groups = [example.group for example in first if example.group]
    assert sum(one != other for one, other in pairwise(groups)) == 2


MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
]


def _typed(role: str, text: str) -> dict[str, Any]:
    """A turn whose content comes in typed parts."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


SURE, NEVER = ({"role": "assistant", "content": word} for word in ("Yes", "No"))
YES, NO = ({"from": "gpt", "value": word} for word in ("Yes", "No"))
SHARED = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hm"}, {"from": "human", "value": "Well?"}]
DIALOGUE = "Human: Hi\n\nAssistant: Hm\n\nHuman: Well?\n\nAssistant:"


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        ({"prompt": "Q", "completion": "A"}, "Q", "A"),
        ({"question": "Q", "answer": " A\n"}, "Q", "A"),
        ({"instruction": "Add.", "input": "1, 2", "output": "3"}, "Add.\n1, 2", "3"),
        ({"instruction": "Go.", "input": "", "output": "Gone"}, "Go.", "Gone"),
        ({"instruction": "Go.", "output": "Gone"}, "Go.", "Gone"),
        ({"instruction": "Go.", "context": None, "response": "Gone"}, "Go.", "Gone"),
        ({"messages": MESSAGES}, "Be brief.\n\nHi", "Hello"),
        ({"messages": json.dumps(MESSAGES)}, "Be brief.\n\nHi", "Hello"),
        ({"conversations": [*SHARED, YES]}, DIALOGUE, "Yes"),
        ({"conversations": [*MESSAGES[1:], {"role": "user", "content": "Thanks"}]}, "Hi", "Hello"),
        ({"prompt": MESSAGES[:2], "completion": MESSAGES[2:]}, "Be brief.\n\nHi", "Hello"),
        ({"prompt": "\n\nHuman: Hi\n\nAssistant:", "response": " Hello"}, "Hi", "Hello"),
        ({"messages": [_typed("user", "Hi"), _typed("assistant", "Hello")]}, "Hi", "Hello"),
        ({"question": 7, "answer": 42.0}, "7", "42"),
        ({"question": "Is it?", "answer": True}, "Is it?", "true"),
        ({"question": "Code?", "answer": '[{"a": 1}]'}, "Code?", '[{"a": 1}]'),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_well_known_columns_of_answers(row: dict[str, Any], prompt: str, answer: str, kind: str, write: Write) -> None:
    assert examples_of(write([row], f"a.{kind}"), "instruct") == [Example(prompt, answer)]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"text": " One.\nTwo. ", "id": 3}, "One.\nTwo."),
        ({"content": "One."}, "One."),
        ({"messages": MESSAGES}, "Be brief.\n\nHuman: Hi\n\nAssistant: Hello"),
        ({"question": "Q", "answer": "A"}, "Q A"),
    ],
)
def test_well_known_columns_of_text(row: dict[str, Any], text: str, write: Write) -> None:
    assert [example.text for example in examples_of(write([row]), "text")] == [text]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Hi", "chosen": "Yes", "rejected": "No"}, "Hi"),
        ({"question": "Hi", "chosen": "Yes", "rejected": "No"}, "Hi"),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: Yes", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}, "Hi"),
        ({"chosen": f"{DIALOGUE} Yes", "rejected": f"\n\n{DIALOGUE} No"}, DIALOGUE),
        ({"prompt": "Hi", "chosen": [MESSAGES[1], SURE], "rejected": [MESSAGES[1], NEVER]}, "Hi"),
        ({"chosen": [*SHARED, YES], "rejected": [*SHARED, NO]}, DIALOGUE),
        ({"conversations": SHARED, "chosen": YES, "rejected": NO}, DIALOGUE),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_well_known_columns_of_preferences(row: dict[str, Any], prompt: str, kind: str, write: Write) -> None:
    assert examples_of(write([row], f"a.{kind}"), "preference") == [Example(prompt, "Yes", rejected="No")]


@pytest.mark.parametrize(
    ("values", "given", "labels", "answers"),
    [
        (["pos", "neg", "pos"], None, ("neg", "pos"), ["pos", "neg", "pos"]),
        ([1, 0, 1], ("bad", "good"), ("bad", "good"), ["good", "bad", "good"]),
        (["1", "0", 1.0], ("bad", "good"), ("bad", "good"), ["good", "bad", "good"]),
        ([10, 2, 10], None, ("2", "10"), ["10", "2", "10"]),
        (["2", "1", "1"], ("1", "2"), ("1", "2"), ["2", "1", "1"]),
        ([True, False, True], None, ("false", "true"), ["true", "false", "true"]),
        (["b", "b", "b"], ("a", "b", "c"), ("a", "b", "c"), ["b", "b", "b"]),
    ],
)
def test_labels_are_words_or_count_into_them(
    values: list[Any], given: tuple[str, ...] | None, labels: tuple[str, ...], answers: list[str], write: Write
) -> None:
    source = write([{"sentence": f"s{number}", "label": value} for number, value in enumerate(values)])
    task = task_of(source, "classify", labels=given)
    assert task.labels == labels
    assert examples_of(source, "classify", labels=given) == [Example(f"s{n}", word) for n, word in enumerate(answers)]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_labels_in_a_csv_count_as_well(name: str, write: Write) -> None:
    source = write([{"text": 'a "b", c\nd', "label": 1}, {"text": "007", "label": 0}], name)
    examples = examples_of(source, "classify", labels=("no", "yes"))
    assert examples == [Example("007", "no"), Example('a "b", c\nd', "yes")]


def test_columns_are_mapped(write: Write) -> None:
    source = write([{"title": "T", "body": "B", "reply": "R", "answer": "not this"}])
    mapping = {"prompt": "title + body", "answer": "reply"}
    task = task_of(source, "instruct", columns=mapping)
    assert list(task(0)) == [Example("T\nB", "R")]
    assert task.origin.endswith("columns {prompt: title + body, answer: reply}")
    assert examples_of(source, "instruct", columns={"prompt": "title"}) == [Example("T", "not this")], "by its own name"
    plus = write([{"a+b": "one column", "answer": "A"}], "plus.jsonl")
    assert examples_of(plus, "instruct", columns={"prompt": "a+b"}) == [Example("one column", "A")]


def test_worked_answers_are_kept_and_their_results_scored(write: Write) -> None:
    source = write([{"question": "How many?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}])
    assert examples_of(source, "reason")[0].answer == "2 + 2 = <<2+2=4>>4\n#### 4"
    (example,) = examples_of(source, "reward")
    assert example.score is not None and example.prompt == "How many?\nAnswer:"
    assert [example.score(said) for said in ("4", "2 + 2 = 4.", "so\n#### 4", "5", "")] == [1, 1, 1, 0, 0]
    asked = write([{"question": "Q: How many?\nA:", "answer": "4"}], "asked.jsonl")
    assert examples_of(asked, "reason")[0].prompt == "Q: How many?\nA:"


def test_rows_without_what_is_needed_are_counted(write: Write) -> None:
    rows = [*QUESTIONS, {"question": None, "answer": "1"}, {"question": "Q", "answer": " "}, {"question": "Q"}]
    rows.append({"question": math.nan, "answer": "1"})
    task = task_of(write(rows), "reason")
    assert len(list(task(0))) == 6
    assert task.origin.endswith("4 rows left out, 2 without prompt, 2 without answer")
    pairs = [
        {"prompt": "Hi", "chosen": "Yes", "rejected": "No"},
        {"prompt": "Hi", "chosen": "Yes", "rejected": "Yes"},
    ]
    assert "1 with the same answer twice" in task_of(write(pairs, "pairs.jsonl"), "preference").origin
    apart = [
        {"chosen": "Human: a\n\nAssistant: x", "rejected": "Human: b\n\nAssistant: y"},
        {"chosen": "Human: a\n\nAssistant: x", "rejected": "Human: a\n\nAssistant: y"},
    ]
    assert "1 whose answers follow different prompts" in task_of(write(apart, "apart.jsonl"), "preference").origin
    silent = [{"messages": MESSAGES[:2]}, {"messages": MESSAGES}]
    assert "1 with no turn of the assistant" in task_of(write(silent, "silent.jsonl"), "instruct").origin


def test_the_version_follows_the_bytes(write: Write) -> None:
    source = write(QUESTIONS)
    assert data_version(DataSettings(source=source)) == hashlib.sha256(Path(source).read_bytes()).hexdigest()
    before = data_version(DataSettings(source=source))
    write(QUESTIONS[:-1])
    assert data_version(DataSettings(source=source)) != before
    with pytest.raises(DataError, match="There is no data file"):
        data_version(DataSettings(source=source + "l"))
