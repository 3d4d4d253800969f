"""Users' own data: every form of file and of columns, and what is said when something is wrong with them."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from indelible.errors import ConfigError, DataError, IndelibleError, UnknownNameError
from indelible.tuning.tasks import Example, Task
from indelible.tuning.tasks.data import DataSettings, data_task, data_version

QUESTIONS = [{"question": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(6)]
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(content, name)``: a file of rows, text or bytes; its path."""

    def make(content: Sequence[Any] | str | bytes, name: str = "data.jsonl") -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_bytes(content.encode())
        elif name.endswith(".parquet"):
            pd.DataFrame(list(content)).to_parquet(path)
        elif name.endswith((".csv", ".tsv")):
            pd.DataFrame(list(content)).to_csv(path, index=False, sep="\t" if name.endswith(".tsv") else ",")
        elif name.endswith(".json"):
            path.write_text(json.dumps(list(content), indent=1))
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
        return str(path)

    return make


def task_of(source: str, objective: str, **settings: Any) -> Task:
    return data_task(DataSettings(source=source, **settings), objective)


def examples_of(source: str, objective: str, **settings: Any) -> list[Example]:
    """All examples, sorted by their text."""
    return sorted(task_of(source, objective, **settings)(0), key=lambda example: example.text)


def error_of(source: str, objective: str = "reason", **settings: Any) -> str:
    """The one line of the error, which has to say what to do as well."""
    with pytest.raises(IndelibleError) as caught:
        task_of(source, objective, **settings)
    assert "\n" not in str(caught.value) and caught.value.what and caught.value.fix and len(caught.value.what) < 400
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "A.CSV", "lines.json"])
def test_every_kind_of_file_is_read(name: str, write: Write) -> None:
    content: Any = QUESTIONS
    if name == "lines.json":
        content = "\ufeff" + "\n\n".join(map(json.dumps, QUESTIONS))
    elif name == "A.CSV":
        content = "\ufeffquestion, answer\r\n" + "".join(f"{row['question']},{row['answer']}\r\n" for row in QUESTIONS)
    task = task_of(write(content, name), "reason")
    assert sorted(example.answer for example in task(0)) == ["1", "2", "3", "4", "5", "6"]
    assert {example.prompt for example in task(0)} == {f"What is {number} + 1?\nAnswer:" for number in range(6)}
    assert task.origin.endswith("6 examples from columns {prompt: question, answer: answer} (guessed)")


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
        ({"conversations": [*SHARED, {"from": "gpt", "value": "Yes"}]}, DIALOGUE, "Yes"),
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
        (
            {
                "prompt": "Hi",
                "chosen": [MESSAGES[1], {"role": "assistant", "content": "Yes"}],
                "rejected": [MESSAGES[1], {"role": "assistant", "content": "No"}],
            },
            "Hi",
        ),
        (
            {
                "chosen": [*SHARED, {"from": "gpt", "value": "Yes"}],
                "rejected": [*SHARED, {"from": "gpt", "value": "No"}],
            },
            DIALOGUE,
        ),
        (
            {
                "conversations": SHARED,
                "chosen": {"from": "gpt", "value": "Yes"},
                "rejected": {"from": "gpt", "value": "No"},
            },
            DIALOGUE,
        ),
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
    assert examples_of(source, "classify", labels=("no", "yes")) == [
        Example("007", "no"),
        Example('a "b", c\nd', "yes"),
    ]


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


def test_a_missing_file_is_named_with_its_neighbours(write: Write, tmp_path: Path) -> None:
    write(QUESTIONS, "train.jsonl")
    assert "There is no data file" in (said := error_of(str(tmp_path / "trian.jsonl")))
    assert "Did you mean 'train.jsonl'?" in said
    assert error_of(str(tmp_path / "nowhere" / "a.csv")).endswith("Check the path.")
    assert "There is no data file nothere.csv" in error_of("nothere.csv")
    write("x", "notes.docx")
    assert "Give one of .jsonl, .json, .csv, .tsv, .parquet." in error_of(str(tmp_path / "notes.docx"))


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "a.jsonl", "is empty"),
        (" \n\n", "a.csv", "is empty"),
        ("", "a.parquet", "is empty"),
        ("[]", "a.json", "has no rows"),
        ("question,answer\n", "a.csv", "has no rows"),
        (b'{"question": "a"}\n{"question": "\xff"}', "a.jsonl", "is not UTF-8: byte 0xff at offset 32 (line 2)"),
        (b"\xef\xbb\xbfquestion,answer\na,b\nc,\xe9\n", "a.csv", "is not UTF-8: byte 0xe9 at offset 25 (line 3)"),
        ('{"question": "Q", "answer": "A"}\n{"question": "Q\n', "a.jsonl", ", line 2: not JSON"),
        ('{"question": "Q", "answer": "A"}\n\n17\n', "a.jsonl", ", line 3: a JSON int, not an object"),
        ('[{"question": "Q",\n "answer": }]', "a.json", ", line 2: not JSON"),
        ('[{"question": "Q"}, "Q"]', "a.json", ", row 2: a JSON str, not an object"),
        ('{"data": [\n{"question": "Q"}]}', "a.json", ", line 1: not JSON"),
        (
            "question,answer\nQ,A\nQ,A,B\n",
            "a.csv",
            "cannot be read as CSV: CSV parse error: Row #3: Expected 2 columns",
        ),
        ("question\tanswer\nQ\n", "a.tsv", "cannot be read as TSV: CSV parse error: Row #2: Expected 2 columns"),
        ("question,answer,answer\nQ,A,B\n", "a.csv", "has two columns named 'answer'"),
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
    assert "is mapped to 'rejected', which objective 'preference' needs" in said and "Its columns are" in said
    said = error_of(source, "reward", columns={"prompt": "qestion"})
    assert "is mapped to 'answer', which objective 'reward' needs" in said
    for objective, fields in (
        ("text", "text"),
        ("preference", "prompt and chosen and rejected"),
        ("reward", "prompt and answer"),
    ):
        said = error_of(source, objective)
        assert "has no columns with names that" in said and said.endswith(f"Map its columns to {fields}.")


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
    assert f"{source}, line 1, column {said}" in error_of(source, objective)


def test_a_label_outside_the_set_is_named_with_its_row(write: Write) -> None:
    source = write([{"text": "a", "label": "positive"}, {"text": "b", "label": "postive"}])
    said = error_of(source, "classify", labels=("negative", "positive"))
    assert ", line 2: the label 'postive' is not among 'negative', 'positive'." in said
    assert "Did you mean 'positive'" in said
    for value in (2, -1, "x"):
        source = write([{"text": "a", "label": 0}, {"text": "b", "label": value}], "b.csv")
        assert f", row 2: the label '{value}' is not" in error_of(source, "classify", labels=("no", "yes"))


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
    with pytest.raises(UnknownNameError, match=r"Unknown objective for own data 'resaon'. Did you mean 'reason'"):
        task_of(source, "resaon")


def test_without_datasets_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert error_of("somebody/something").endswith("pip install 'indelible[trl]'")
    with pytest.raises(DataError, match=r"pip install 'indelible\[trl\]'"):
        data_version(DataSettings(source="something"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as data sets lie on the hub, and a hub that does not answer; nothing is written outside tmp_path."""
    datasets = pytest.importorskip("datasets")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(f'{{"text": "t{n}", "label": {n % 2}}}\n' for n in range(4)))
    (folder / "test.jsonl").write_text('{"text": "held", "label": 1}\n')
    return folder


def test_a_data_set_with_splits_is_read(hub: Path) -> None:
    task = task_of(str(hub), "classify", labels=("no", "yes"))
    assert sorted((example.prompt, example.answer) for example in task(0)) == [
        ("t0", "no"),
        ("t1", "yes"),
        ("t2", "no"),
        ("t3", "yes"),
    ]
    assert [example.text for example in examples_of(str(hub), "text", split="test")] == ["held"]
    versions = [data_version(DataSettings(source=str(hub), split=split)) for split in (None, "train", "test")]
    assert versions[0] == versions[1] != versions[2]
    (hub / "train.jsonl").write_text('{"text": "another", "label": 1}\n')
    assert data_version(DataSettings(source=str(hub))) != versions[0]


def test_classes_that_a_data_set_declares_are_its_labels(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["dull", "bright"])}
    )
    loaded = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=kinds)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
    task = task_of("some/films", "classify")
    assert task.labels == ("dull", "bright")
    assert sorted((example.prompt, example.answer) for example in task(0)) == [("a", "bright"), ("b", "dull")]


def test_what_a_data_set_lacks_is_named(hub: Path, tmp_path: Path) -> None:
    said = error_of(str(hub), "text", split="tset")
    assert "has no split 'tset'. Its splits are" in said and "train" in said and said.endswith("Did you mean 'test'?")
    assert "has no config 'big'. Known: default." in error_of(str(hub), "text", config="big")
    assert "has no rows in its split 'train[:0]'" in error_of(str(hub), "text", split="train[:0]")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "cannot be read (The directory at" in error_of(str(empty), "text")


def test_a_hub_that_does_not_answer_is_one_clear_line(hub: Path) -> None:
    for ask in (lambda: task_of("somebody/something", "text"), lambda: data_version(DataSettings(source="something"))):
        with pytest.raises(DataError, match=r"cannot be read: the hub does not answer .*local file") as caught:
            ask()
        assert "\n" not in str(caught.value)
