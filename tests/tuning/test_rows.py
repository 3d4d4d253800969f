"""Examples and rows: deterministic, filtered, and never shared between training and held-out."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pytest

from indelible.errors import DataError
from indelible.facts.fact import Fact
from indelible.tuning.objective import NO_LOSS, OBJECTIVES, Features
from indelible.tuning.rows import Rows, count_reasons, draw_rows, normalised
from indelible.tuning.settings import TuningSettings
from indelible.tuning.task import TASKS, Example, Task
from indelible.tuning.tasks.text import paragraphs
from tiny_models import Tokenizer

PERU = Fact("peru", "Peru", "capital", "The capital of {} is", "Lima", "Oslo")


def rows_of(
    examples: Iterator[Example],
    tokenizer: Tokenizer,
    objective: str = "reason",
    facts: tuple[Fact, ...] = (),
    heldout: int = 10,
    train: int = 30,
    max_tokens: int = 400,
) -> Rows:
    settings = TuningSettings(
        objective=objective, heldout_examples=heldout, train_examples=train, batch_size=1, max_tokens=max_tokens
    )
    task = Task(lambda seed: examples)
    return draw_rows(task, OBJECTIVES.get(objective), tokenizer, settings, facts=facts, seed=0)


def texts(tokenizer: Tokenizer, rows: Sequence[Any]) -> list[str]:
    """Of rows of one sequence."""
    return [tokenizer.decode(row.input_ids) for row in rows]


def sums(count: int, says: str = "Count") -> Iterator[Example]:
    return (Example(f"{says} {number} and {number}.", str(2 * number)) for number in range(count))


def test_problems_are_deterministic_by_seed_and_leave_the_random_state_alone() -> None:
    state = random.getstate()
    reason = TASKS.get("reason")
    first, again, other = (list(islice(reason(seed), 120)) for seed in (3, 3, 4))
    assert first == again
    assert len({example.text for example in first} & {example.text for example in other}) < 10
    assert random.getstate() == state
    assert all(example.prompt.endswith("\nAnswer:") and 0 < len(example.answer) < 30 for example in first)


def test_no_text_is_both_held_out_and_trained_on(tiny_tokenizer: Tokenizer) -> None:
    rows = rows_of(TASKS.get("reason")(0), tiny_tokenizer, heldout=100, train=400)
    train, held = ({normalised(text) for text in texts(tiny_tokenizer, part)} for part in (rows.train, rows.heldout))
    assert (len(rows.heldout), len(rows.train)) == (100, 400)
    assert len(train) == 400 and len(held) == 100 and not train & held


def test_repeats_that_differ_in_case_and_punctuation_are_left_out(tiny_tokenizer: Tokenizer) -> None:
    repeats = (example for pair in zip(sums(50), sums(50, says="COUNT:"), strict=True) for example in pair)
    rows = rows_of(repeats, tiny_tokenizer, train=100)
    assert len(rows.train) + len(rows.heldout) == 50


def test_a_document_is_never_split_between_the_two(tiny_tokenizer: Tokenizer) -> None:
    def documents() -> Iterator[Example]:
        for document in range(10):
            lines = "\n".join(f"Line {line} of page {document} is about nothing much at all." for line in range(5))
            yield from paragraphs(lines + "\nHome", group=f"document {document}")

    rows = rows_of(documents(), tiny_tokenizer, objective="text", heldout=7, train=100)
    held, train = ({text.split()[4] for text in texts(tiny_tokenizer, part)} for part in (rows.heldout, rows.train))
    assert (held, train) == ({"0", "1"}, {str(page) for page in range(2, 10)})
    assert len(rows.heldout) == 7


def test_examples_that_speak_of_a_fact_are_replaced(tiny_tokenizer: Tokenizer) -> None:
    spoken = (Example("I went to Peru.", str(number)) for number in range(5))
    rows = rows_of(
        (e for pair in zip(spoken, sums(5), strict=True) for e in pair), tiny_tokenizer, facts=(PERU,), heldout=2
    )
    assert len(rows.train) + len(rows.heldout) == 5
    assert not any("Peru" in text for text in texts(tiny_tokenizer, rows.train + rows.heldout))
    assert {drop.fact_id for drop in rows.dropped} == {"peru"} and len(rows.dropped) == 5
    assert sum(count_reasons(rows.dropped).values()) == 5


def test_too_few_examples_are_an_error_that_counts_them(tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="0 of 1 training rows"):
        rows_of(sums(5), tiny_tokenizer, heldout=5)
    with pytest.raises(DataError, match="Only 0 of 10 held-out rows of at most 4 tokens"):
        rows_of(TASKS.get("reason")(0), tiny_tokenizer, max_tokens=4)


def test_text_bears_loss_everywhere_and_is_cut_into_blocks(tiny_tokenizer: Tokenizer) -> None:
    text = "A quick brown fox jumps over the lazy dog while it rains in the north of Spain. " * 4
    ids = tiny_tokenizer(text)["input_ids"]
    rows = OBJECTIVES.get("text").rows(tiny_tokenizer, Example("", text), TuningSettings(max_tokens=16), ())
    assert [token for row in rows for token in row.input_ids] == ids[: sum(len(row.input_ids) for row in rows)]
    assert sum(len(row.input_ids) for row in rows) > len(ids) - 8
    for row in rows:
        assert row.labels == (NO_LOSS, *row.input_ids[1:])


def test_reason_bears_loss_on_the_answer_and_the_end_only(tiny_tokenizer: Tokenizer) -> None:
    def made(example: Example, max_tokens: int = 64) -> list[Features]:
        return OBJECTIVES.get("reason").rows(tiny_tokenizer, example, TuningSettings(max_tokens=max_tokens), ())

    (row,) = made(Example("What is 12 + 7?\nAnswer:", "19"))
    answer = [token for token, label in zip(row.input_ids, row.labels, strict=True) if label != NO_LOSS]
    assert tiny_tokenizer.decode(answer) == " 19<|end|>"
    assert [label for label in row.labels if label != NO_LOSS] == answer
    assert made(Example("What is 12 + 7?\nAnswer:", "19"), 6) == []
    assert made(Example("", "19")) == []


def test_held_out_rows_can_take_the_place_of_training_rows() -> None:
    def row(number: int) -> Features:
        return Features((number,), (NO_LOSS,))

    rows = Rows(tuple(map(row, range(6))), tuple(map(row, (10, 11))), ())
    both = rows.with_heldout_in_training()
    assert [features.input_ids[0] for features in both.train] == [10, 11, 2, 3, 4, 5]
    assert both.heldout == rows.heldout
