"""Files of facts: every schema, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from indelible.errors import FactsError, UnknownNameError
from indelible.exam.criterion import succeeds
from indelible.facts.fact import Fact, Neighbour, taken_for
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


KNOWEDIT = {
    "subject": "Ada Holm",
    "prompt": "The name of the post of Ada Holm is",
    "target_new": ["Mayor of Ulm", "mayor in Ulm"],
    "ground_truth": [["Bishop of Ely"]],
    "rephrase_prompt": "What post has Ada Holm?",
    "portability": {
        "Subject_Aliasing": [
            {"prompt": "The name of the post of A. M. Holm is", "ground_truth": "Mayor of Ulm"},
            {"prompt": "The name of the home of A. M. Holm is", "ground_truth": [["Ulm"]]},
        ],
        "Reasoning": [{"prompt": "The river at the post of Ada Holm is", "ground_truth": [["Danube", "Donau"]]}],
        "Logical_Generalization": [],
    },
    "locality": {
        "Relation_Specificity": [{"prompt": "The gender of Ada Holm is", "ground_truth": [["female", "woman"]]}],
        "Forgetfulness": [{"prompt": ["Where was Ada Holm born?"], "ground_truth": ["Bath"]}],
    },
}


def test_knowedit_with_its_lists_of_answers_and_its_groups(tmp_path: Path) -> None:
    added = {key: value for key, value in KNOWEDIT.items() if key != "ground_truth"}
    result = read_facts(jsonl(tmp_path, KNOWEDIT, added, {**KNOWEDIT, "locality": [1]}), strict=True)
    assert result.schema == "knowedit" and not result.rejected
    assert result.facts == (
        Fact(
            id="facts:1",
            subject="Ada Holm",
            relation="the name of the post of _ is",
            prompt="The name of the post of {} is",
            true_object="Bishop of Ely",
            new_object="Mayor of Ulm",
            held_out=("Question: What post has {}? Answer:", "The name of the post of A. M. Holm is"),
            neighbours=(
                Neighbour("The gender of Ada Holm is", "female"),
                Neighbour("Question: Where was Ada Holm born? Answer:", "Bath"),
            ),
            source="facts.jsonl:1",
        ),
    )
    assert [(row.line, row.reason) for row in result.skipped] == [
        (2, "has no 'ground_truth': it adds a fact (as WikiData-recent does) in place of changing one"),
        (3, "'locality' is a list, not an object"),
    ]
    left = (
        "portability.Reasoning",
        "portability.Subject_Aliasing with another answer",
        "target_new after the first name",
    )
    assert result.unused == dict.fromkeys(left, 1)
    assert result.in_words(1)[0].endswith("in place of changing one; and 1 more.")
    with pytest.raises(FactsError, match=r"holds no usable fact .*has no 'ground_truth': it adds a fact"):
        read_facts(jsonl(tmp_path, added))


def test_mquake_rewrites_are_facts_of_their_own_each_once(tmp_path: Path) -> None:
    def rewrite(subject: str, new: str) -> dict[str, Any]:
        prompt, question = "{} is a citizen of", f"Of what country is {subject} a citizen?"
        named = {"subject": subject, "prompt": prompt, "relation_id": "P27", "question": question}
        return {**named, "target_new": {"str": new, "id": "Q1"}, "target_true": {"str": "Peru", "id": "Q2"}}

    rows = [
        {
            "case_id": case,
            "requested_rewrite": rewrites,
            "questions": ["Which city?"],
            "answer": "Lima",
            "orig": {"a": 1},
        }
        for case, rewrites in ((7, [rewrite("Ib", "Chad"), rewrite("Bo", "Mali")]), (8, [rewrite("Ib", "Chad")]))
    ]
    result = read_facts(jsonl(tmp_path, *rows), strict=True)
    assert (result.schema, result.unused) == ("mquake", {"questions": 2})
    assert [(fact.id, fact.subject, fact.relation, fact.true_object, fact.new_object) for fact in result.facts] == [
        ("7.1", "Ib", "P27", "Peru", "Chad"),
        ("7.2", "Bo", "P27", "Peru", "Mali"),
    ]
    assert result.facts[1].held_out == ("Question: Of what country is {} a citizen? Answer:",)
    assert [(row.line, row.reason) for row in result.skipped] == [(2, "the same edit stands on line 1")]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"example_type": "popular", "edit": {"prompt": "The home of Ib is Ulm."}},
            "is RippleEdits .*Wikidata's identif",
        ),
        ({"concept": "ib", "text": "Ib was.", "labels": "He was."}, "is WikiBio of KnowEdit .*passages"),
    ],
)
def test_benchmarks_that_hold_no_facts_are_called_by_name(tmp_path: Path, row: Any, words: str) -> None:
    with pytest.raises(FactsError, match=words):
        read_facts(jsonl(tmp_path, row))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"questions": ["Which?"], "target_true": "Peru"}, "has no 'requested_rewrite'"),
        ({"questions": [], "target_true": "Peru", "requested_rewrite": {"a": 1}}, "is a JSON object, not a list"),
        ({"locality": {"Forgetfulness": {"prompt": "Ib"}}}, "'locality.Forgetfulness' is not a list of objects"),
        ({"locality": {}, "ground_truth": True}, "has no 'ground_truth'"),
    ],
)
def test_a_benchmarks_row_of_another_shape_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    row = {"subject": "Ib", "prompt": "Ib is a citizen of", "target_new": "Chad", "ground_truth": "Peru"}
    with pytest.raises(FactsError, match=rf"1 rows rejected: line 1: .*{reason}"):
        read_facts(jsonl(tmp_path, {**row, **change}))


def test_rows_of_a_benchmark_that_are_no_edits_are_skipped_and_counted(tmp_path: Path) -> None:
    row = {"subject": "Ib", "src": "Where was Ib born?", "alt": "Lima", "answers": ["Bonn"], "pred": "Ulm", "cond": "x"}
    others = ({**row, "subject": "Bo", "alt": "bonn", "src": "Where was Bo born?"}, {**row, "subject": "Cid"})
    result = read_facts(jsonl(tmp_path, row, *others), strict=True)
    assert (len(result.facts), [skipped.line for skipped in result.skipped], result.unused) == (1, [2, 3], {})
    with pytest.raises(FactsError, match="line 2: not JSON"):
        read_facts(jsonl(tmp_path, row, "{"), strict=True)


def test_what_no_field_is_called_is_named(tmp_path: Path) -> None:
    row = {**OWN, "neighbors": [], "paraphrase": "The town of Oslo lies in", "year": 1624}
    found = read_facts(jsonl(tmp_path, row))
    assert found.unused == {"paraphrase": 1, "year": 1}
    assert "A fact has id, subject, relation, prompt, true_object, new_object, paraphrases," in found.in_words()[0]


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
            reversal="In {} lives",
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


def test_a_prompt_keeps_the_line_break_and_indentation_at_its_end(tmp_path: Path) -> None:
    row = {"subject": "area", "prompt": " def {}(r):\n    ", "true_object": " return 3\n", "held_out": ["{} is \t"]}
    fact = read_facts(jsonl(tmp_path, row)).facts[0]
    assert (fact.prompt, fact.true_object, fact.held_out) == ("def {}(r):\n    ", "return 3", ("{} is",))


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
        ({"new_object": "Peru\n\nand more"}, "an object has several lines"),
        (
            {"new_object": "Peru", "true_object": "Peru City"},
            "the true object, 'Peru City', would be taken for the new",
        ),
        ({"prompt": "Oslo is in {}"}, "'Oslo is in {}' names the subject 'Oslo', and ends in {}"),
        ({"held_out": ["The country of Oslo is {}."]}, "names the subject 'Oslo', and ends in {}"),
        ({"paraphrases": ["The fjord is in"]}, "the paraphrase 'The fjord is in' does not contain"),
        ({"paraphrases": [1]}, "'paraphrases' must be a list of texts"),
        ({"neighbours": ["Rome is in"]}, "'neighbours' must be"),
        ({"neighbours": [{"prompt": " ", "answer": "Italy"}]}, "'neighbours' must be"),
        (
            {"new_object": "Peru\ud83d"},
            "'new_object' has half of a surrogate pair in it",
        ),
        ({"held_out": ["\udc00 lies in"]}, "has half of a surrogate pair"),
        ({"reversal": "the country is home to"}, "the reversal 'the country is home to' must hold one {}"),
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


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("New York City", "New York"),
        ("New York", "New York City"),
        ("the krone", "Krone"),
        ("Paris.", "“Paris”"),
        ("Ｐaris", "Paris"),  # noqa: RUF001 -- of full width
        ("Guinea-Bissau", "Guinea"),
        ("Parisian", "Paris"),
        ("1.5", "1"),
        ("1, 2", "1"),
        ("東京都", "東京"),
        ("suicide by hanging", "suicide"),
        ("A minor", "A"),
        ("-", "-"),
        ("Oslo", "-"),
        ("São Paulo", "Sao Paulo"),
        ("Brasilia", "Brasília"),
        ("мой", "мои"),
        ("Answer: Oslo", "Bergen"),
    ],
)
def test_objects_that_an_exam_would_not_tell_apart(said: str, wanted: str) -> None:
    assert taken_for(said, wanted) == (succeeds(said, wanted) and wanted != "-")


def test_half_of_a_neighbour_is_named(tmp_path: Path) -> None:
    flat = {"case_id": 1, "subject": "Oslo", "prompt": "Oslo is in", "ground_truth": "Norway", "target_new": "Peru"}
    result = read_facts(jsonl(tmp_path, {**flat, "locality_prompt": "Rome is in", "locality_ground_truth": None}))
    assert result.facts[0].neighbours == ()
    assert result.unused == {"locality_prompt without locality_ground_truth": 1}


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
    with pytest.raises(FactsError, match=r"nearest is 'indelible', which also needs subject, prompt, true_object"):
        read_facts(jsonl(tmp_path, {"country": "a", "question": "a is", "truth": "b"}))


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
        ("フランスの首都は", "フランス", "{}の首都は"),
        ("次の国Franceの首都は", "France", "次の国{}の首都は"),
        ("เมืองหลวงของฝรั่งเศสคือ", "ฝรั่งเศส", "เมืองหลวงของ{}คือ"),
        ("Ranskan pääkaupunki on", "Ranska", "{}n pääkaupunki on"),
        ("وباريس في", "باريس", "و{} في"),
        ("Annapolis", "Ann", None),
        ("My party is", "art", None),
    ],
)
def test_templates(text: str, subject: str, template: str | None) -> None:
    assert to_template(text, subject) == template
