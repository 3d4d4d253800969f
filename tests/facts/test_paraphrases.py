"""Wordings for edits: enough, all different, never one that is kept apart for judging."""

from __future__ import annotations

import pytest

from indelible.errors import EditError
from indelible.facts.fact import SLOT, Fact
from indelible.facts.wordings import editing_wordings

PLAIN = Fact("a", "Oslo", "country", "The city of {} lies in", "Norway")


def test_own_paraphrases_come_first_then_at_least_twelve_rewrites() -> None:
    fact = Fact("a", "Oslo", "country", PLAIN.prompt, "Norway", paraphrases=("{} is in", "Find {} in"))
    wordings = editing_wordings(fact, 14)
    assert wordings[:2] == ["{} is in", "Find {} in"]
    assert len(set(wordings)) == 14
    assert fact.prompt not in wordings
    assert all(wording.count(SLOT) == 1 and wording == wording.strip() for wording in wordings)
    assert editing_wordings(fact, 3) == wordings[:3]
    assert editing_wordings(fact, 0) == []


def test_the_first_word_is_lowered_only_where_that_is_right() -> None:
    assert "It is well known that the city of {} lies in" in editing_wordings(PLAIN, 5)
    name = Fact("b", "x", "r", "Parisian food of {} is", "good")
    assert "It is well known that Parisian food of {} is" in editing_wordings(name, 5)
    slot = Fact("c", "Oslo", "r", "{} lies in", "Norway")
    assert editing_wordings(slot, 1) == ["It is well known that {} lies in"]


def test_questions_are_not_put_into_a_clause() -> None:
    fact = Fact("d", "Ann", "r", "Question: Where was {} born? Answer:", "Rome")
    wordings = editing_wordings(fact, 12)
    assert all(wording.endswith(f". {fact.prompt}") for wording in wordings)


def test_held_out_wordings_are_never_used() -> None:
    free = editing_wordings(PLAIN, 6)
    fact = Fact(
        "a", "Oslo", "r", PLAIN.prompt, "Norway", paraphrases=("{} is in",), held_out=("{} is in", free[0], "x")
    )
    assert "{} is in" not in editing_wordings(fact, 6)
    assert free[0] not in editing_wordings(fact, 6)
    complete = Fact("a", "Oslo", "r", PLAIN.prompt, "Norway", held_out=(PLAIN.text(free[1]),))
    assert free[1] not in editing_wordings(complete, 6)


def test_too_many_are_refused_with_the_number_there_is() -> None:
    with pytest.raises(EditError, match="100 paraphrases were asked for, but only 24 can be made"):
        editing_wordings(PLAIN, 100)
    assert len(editing_wordings(PLAIN, 24)) == 24
    with pytest.raises(EditError):
        editing_wordings(PLAIN, -1)
