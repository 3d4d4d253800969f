"""Files of facts: every schema, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from indelible.errors import FactsError, UnknownNameError
from indelible.facts.fact import Fact, Neighbour
from indelible.facts.formats import to_template
from indelible.facts.read import Rejected, read_facts

OWN = {"subject": "Oslo", "prompt": "Oslo lies in", "true_object": "Norway"}


def jsonl(folder: Path, *rows: Any) -> Path:
    path = folder / "facts.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def test_counterfact_in_its_original_schema(tmp_path: Path) -> None:
    row = {
        "case_id": 12,
        "prompt": "{} was painted by",
        "subject": "The Blue Door",
        "relation_id": "P170",
        "target_new": {"str": "Vermeer"},
        "target_true": {"str": " Hopper"},
        "paraphrase_prompts": ["Some words before. The Blue Door is a work of", "The painter of it is"],
        "neighborhood_prompts": ["The Red Window was painted by"],
    }
    rewrite = {key: row[key] for key in ("prompt", "subject", "relation_id", "target_new", "target_true")}
    around = {key: row[key] for key in ("case_id", "paraphrase_prompts", "neighborhood_prompts")}
    for given in (row, {**around, "requested_rewrite": rewrite}):
        result = read_facts(jsonl(tmp_path, given))
        assert result.schema == "counterfact" and not result.rejected
        assert result.facts == (
            Fact(
                id="12",
                subject="The Blue Door",
                relation="P170",
                prompt="{} was painted by",
                true_object="Hopper",
                new_object="Vermeer",
                held_out=("Some words before. {} is a work of", "The painter of it is"),
                neighbours=(Neighbour("The Red Window was painted by", "Hopper"),),
                source="facts.jsonl:1",
            ),
        )


def test_counterfact_in_the_flat_schema(tmp_path: Path) -> None:
    row = {
        "case_id": 7,
        "prompt": "The harbour of Velia is in",
        "subject": "Velia",
        "target_new": "Peru",
        "ground_truth": "Italy",
        "rephrase_prompt": "One can sail to Velia, in",
        "locality_prompt": "The harbour of Bari is in",
        "locality_ground_truth": "Italy",
    }
    fact = read_facts(jsonl(tmp_path, row)).facts[0]
    assert (fact.id, fact.prompt, fact.true_object, fact.new_object) == (
        "7",
        "The harbour of {} is in",
        "Italy",
        "Peru",
    )
    assert fact.held_out == ("One can sail to {}, in",)
    assert fact.neighbours == (Neighbour("The harbour of Bari is in", "Italy"),)
    assert fact.text() == row["prompt"]
    assert fact.relation == "the harbour of _ is in"


def test_zsre_questions_end_where_the_answer_begins(tmp_path: Path) -> None:
    row = {
        "subject": "Hilda Moss",
        "src": "Where was Hilda Moss born?",
        "pred": "Rome",
        "rephrase": "What is Hilda Moss's birthplace?",
        "alt": "Lima",
        "answers": ["Bonn", "Bonn am Rhein"],
        "loc": "nq question: who dug the canal",
        "loc_ans": "the navvies",
    }
    result = read_facts(jsonl(tmp_path, row))
    fact = result.facts[0]
    assert result.schema == "zsre"
    assert fact.prompt == "Question: Where was {} born? Answer:"
    assert (fact.true_object, fact.new_object) == ("Bonn", "Lima")
    assert fact.held_out == ("Question: What is {}'s birthplace? Answer:",)
    assert fact.neighbours == (Neighbour("Question: who dug the canal? Answer:", "the navvies"),)


def test_own_schema_round_trip(tmp_path: Path) -> None:
    plain = Fact("a", "Zoë", "home", "{} lives in", "Bergen")
    facts = (
        plain,
        replace(
            plain,
            id="b",
            new_object="Lund",
            paraphrases=("The home of {} is",),
            held_out=("No slot, only text\u2028with a line separator",),
            neighbours=(Neighbour("Ib lives in", "Bergen"),),
            source="made up",
        ),
    )
    read = read_facts(jsonl(tmp_path, *map(asdict, facts)))
    assert read.facts == (replace(plain, source="facts.jsonl:1"), facts[1])


def test_csv_with_mapped_columns_lists_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(
        "\ufeffwho,ask,truth,also\n"
        '"Ann ""A""","Ann ""A"" lives\nin",Rome,"The home of Ann ""A"" is|Find Ann ""A"" in"\n'
        "\n"
        "Bob,Bob lives in,Oslo\n"
        "Cid,Someone lives in,Oslo,\n",
        encoding="utf-8",
    )
    columns = {"subject": "who", "prompt": "ask", "true_object": "truth", "paraphrases": "also"}
    result = read_facts(path, columns=columns)
    assert [fact.subject for fact in result.facts] == ['Ann "A"']
    assert result.facts[0].paraphrases == ("The home of {} is", "Find {} in")
    assert result.facts[0].source == "facts.csv:2"
    assert [row.line for row in result.rejected] == [5, 6]
    assert "3 fields" in result.rejected[0].reason and "'Cid'" in result.rejected[1].reason


def test_a_csv_may_hold_a_benchmark_schema(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("prompt,subject,target_new,ground_truth\nRig is in,Rig,Peru,Chad\n", encoding="utf-8")
    assert read_facts(path).schema == "counterfact-flat"


def test_json_array_knows_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps([OWN, {**OWN, "prompt": "No subject here"}, 5], indent=1), encoding="utf-8")
    result = read_facts(path)
    assert [fact.source for fact in result.facts] == ["facts.json:2"]
    assert [row.line for row in result.rejected] == [7, 12]


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 200_000])
def test_json_that_python_does_not_take_is_a_bad_row(tmp_path: Path, value: str) -> None:
    row = f'{{"subject": "Oslo", "prompt": {value}}}'
    (rejected,) = read_facts(jsonl(tmp_path, OWN, row)).rejected
    assert rejected.line == 2 and "not JSON that can be read" in rejected.reason
    (tmp_path / "facts.json").write_text(f"[{row}]", encoding="utf-8")
    with pytest.raises(FactsError, match=r"facts\.json: not JSON that can be read"):
        read_facts(tmp_path / "facts.json")


COLUMNS = "subject,prompt,true_object,new_object\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (COLUMNS + 'Oslo,{} is in,Norway,"Peru\nBonn,{} is in,Germany,Chad\n', "line 2: not CSV .unexpected end"),
        (COLUMNS + 'Oslo,{} is in,Norway,Peru\nBonn,{} is in,"Germany,Chad\nBari,"{}",Italy,Mali\n', "line 3: not CSV"),
        ('"subject' + "x" * 140_000 + ",prompt\n", "line 1: not CSV"),
        (COLUMNS.replace("true_object", "new_object") + "Oslo,{} is in,Norway,Peru\n", "named 'new_object'"),
        (COLUMNS.replace(",", ";") + "Oslo;{} is in;Norway;Peru\n", "line 1: the header is one column.*Put commas"),
    ],
)
def test_a_broken_csv_is_refused_as_a_whole(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "facts.csv").write_text(text, encoding="utf-8")
    with pytest.raises(FactsError, match=words):
        read_facts(tmp_path / "facts.csv")


def test_a_csv_may_begin_with_blank_lines_and_leave_numbers_blank(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(
        "\n ,\ncase_id,subject,prompt,target_new,ground_truth,,\n"
        ",Rig,Rig is in,Peru,Chad,,\n"
        ",Bo,Bo is in,Peru,Chad,,\n",
        encoding="utf-8",
    )
    assert [fact.id for fact in read_facts(path, strict=True).facts] == ["facts:4", "facts:5"]


def test_a_broken_line_seven_is_named(tmp_path: Path) -> None:
    rows = [{**OWN, "id": str(number)} for number in range(9)]
    path = jsonl(tmp_path, *rows[:6], '{"subject": "Oslo", "prompt"', *rows[6:])
    result = read_facts(path)
    assert len(result.facts) == 9
    assert [row.line for row in result.rejected] == [7]
    assert result.rejected[0].reason.startswith("not JSON")
    with pytest.raises(FactsError, match=r"facts\.jsonl, line 7: not JSON"):
        read_facts(path, strict=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": "The lake lies in"}, "the prompt 'The lake lies in' does not contain the subject 'Oslo'"),
        ({"prompt": "Oslofjord lies in"}, "does not contain the subject"),
        ({"prompt": "{} and {} lie in"}, "does not contain the subject"),
        ({"prompt": None}, "has no 'prompt'"),
        ({"subject": "  "}, "'subject' is blank"),
        ({"true_object": ["Norway"]}, "'true_object' is a list, not text"),
        ({"new_object": "norway"}, "the new object is the true one"),
        ({"paraphrases": ["The fjord is in"]}, "the paraphrase 'The fjord is in' does not contain"),
        ({"paraphrases": [1]}, "'paraphrases' must be a list of texts"),
        ({"neighbours": ["Rome is in"]}, "'neighbours' must be"),
        ({"neighbours": [{"prompt": " ", "answer": "Italy"}]}, "'neighbours' must be"),
        ({"new_object": "Peru\ud83d"}, r"Peru\ud83d' has half of a surrogate pair in it"),
        ({"held_out": ["\udc00 lies in"]}, "has half of a surrogate pair"),
        ({"id": "first"}, "the id 'first' was used before, on line 1"),
    ],
)
def test_bad_rows_are_named_with_their_reason(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = jsonl(tmp_path, {**OWN, "id": "first"}, {**OWN, **change})
    (rejected,) = read_facts(path, schema="indelible").rejected
    assert isinstance(rejected, Rejected)
    assert rejected.line == 2
    assert reason in rejected.reason
    with pytest.raises(FactsError, match="line 2"):
        read_facts(path, schema="indelible", strict=True)


def test_files_without_facts_are_errors(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text(" \n\n")
    with pytest.raises(FactsError, match=r"empty\.jsonl is empty"):
        read_facts(empty)
    for name, text in (("header.csv", "subject,prompt\n"), ("array.json", "[ ]")):
        (tmp_path / name).write_text(text)
        with pytest.raises(FactsError, match="has no rows"):
            read_facts(tmp_path / name)
    broken = tmp_path / "broken.json"
    broken.write_text('[\n{"a": 1},\n{"b": }\n]')
    with pytest.raises(FactsError, match=r"broken\.json, line 3: not JSON"):
        read_facts(broken)


def test_unknown_schema_names_and_columns(tmp_path: Path) -> None:
    path = jsonl(tmp_path, OWN)
    with pytest.raises(UnknownNameError, match=r"schema.*'counterfac'.*Did you mean 'counterfact'"):
        read_facts(path, schema="counterfac")
    with pytest.raises(UnknownNameError, match=r"'true_objct'.*Did you mean 'true_object'"):
        read_facts(path, columns={"true_objct": "true_object"})
    with pytest.raises(FactsError, match=r"no column 'subjcet' \(mapped to subject\)\. Did you mean 'subject'"):
        read_facts(path, columns={"subject": "subjcet"})
    with pytest.raises(FactsError, match="schema is 'zsre'"):
        read_facts(path, columns={"subject": "subject"}, schema="zsre")


def test_unrecognised_rows_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FactsError, match=r"nearest is 'indelible', which also needs true_object"):
        read_facts(jsonl(tmp_path, {"subject": "a", "prompt": "a is", "truth": "b"}))


def test_no_usable_row_is_an_error(tmp_path: Path) -> None:
    bad = {**OWN, "prompt": "Nobody lies in"}
    with pytest.raises(FactsError, match=r"no usable fact \(2 rows rejected: line 1: the prompt"):
        read_facts(jsonl(tmp_path, bad, bad))
    with pytest.raises(FactsError, match=r"line 1: not JSON"):
        read_facts(jsonl(tmp_path, "this is no JSON"))


@pytest.mark.parametrize(
    ("text", "subject", "template"),
    [
        ("Ann knows Ann", "Ann", "{} knows Ann"),
        ("Anna knows Ann", "Ann", "Anna knows {}"),
        ("ann knows Ann", "Ann", "ann knows {}"),
        ("The ANN knows", "Ann", "The {} knows"),
        ("C++ is", "C++", "{} is"),
        ("{} is", "anything", "{} is"),
        ("Nobody", "Ann", None),
        ("{} {} Ann", "Ann", None),
    ],
)
def test_templates(text: str, subject: str, template: str | None) -> None:
    assert to_template(text, subject) == template
