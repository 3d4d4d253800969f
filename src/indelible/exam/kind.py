"""What a kind of question is: what is asked of a fact, and which answers count.

A kind is data, one file of ``exam.kinds``: rows bear its name, and measures go by that name (numbers.measures). PLAIN
is what every exam asks; the others are asked where somebody names them. Of every kind an answer counts that is what a
model should give that holds the fact, so that more is better and what was kept means the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from indelible.errors import ModelError
from indelible.facts.fact import Fact
from indelible.numbers.measures import FactSet
from indelible.registry import Registry

PLAIN = ("prompt", "paraphrase", "neighbour")
"""A fact's own prompt, its held-out wordings, and its neighbours."""


@dataclass(frozen=True)
class Asked:
    """One prompt about a fact: see ``questions.Question``."""

    prompt: str
    target: str
    rival: str | None = None
    context: str = ""


@dataclass(frozen=True)
class Given:
    """What a kind may go by beside the fact.

    Attributes:
        fact_set: in which the fact is asked.
        facts: all facts of that set that are asked of the same model.
        context: what an edit puts before every prompt; a kind whose prompts have a form around them puts it inside.
        tokenizer: the model's; None where no kind is asked that needs it.
    """

    fact_set: FactSet
    facts: Sequence[Fact]
    context: str = ""
    tokenizer: Any = None

    def objects(self, fact: Fact) -> tuple[str, str | None]:
        """The object that is to be said, and the one that it competes with, if there is one.

        Of edited facts the first is the new object, of intrinsic ones the true. Raises ValueError for an edited fact
        without a new object.
        """
        if self.fact_set == "intrinsic":
            return fact.true_object, fact.new_object
        if fact.new_object is None:
            raise ValueError(f"fact {fact.id} has no new object, so it cannot be asked as an edited fact")
        return fact.new_object, fact.true_object or None


class Judged(Protocol):
    """What a verdict may go by: see ``exam.Answer``."""

    @property
    def success(self) -> bool:
        """Whether the continuation starts with the target."""
        ...

    @property
    def log_prob(self) -> float: ...

    @property
    def margin(self) -> float: ...


@dataclass(frozen=True)
class QuestionKind:
    """One kind of question.

    Attributes:
        asks: the prompts about a fact, in the order of their wordings; none where the fact cannot be asked so.
        verdicts: which answers about one fact count, of all that this kind asked of it; None for the criterion of
            ``exam.criterion``.
        lacking: what a tokenizer lacks to be asked so, in words, or None.
        cost: of a fact, in questions of a plain exam.
        version: raised when it asks or judges otherwise, so that older answers are not taken for new ones.
    """

    asks: Callable[[Fact, Given], Iterable[Asked]]
    verdicts: Callable[[Sequence[Judged]], Sequence[bool]] | None = None
    lacking: Callable[[Any], str | None] = lambda tokenizer: None
    cost: float = 1.0
    version: int = 1


KINDS: Registry[QuestionKind] = Registry("kind of question", "indelible.exam.kinds", group="indelible.questions")


def further_kinds() -> list[str]:
    """Names of the kinds that are asked only where somebody names them."""
    return [name for name in KINDS.names() if name not in PLAIN]


def versions_of(names: Sequence[str]) -> dict[str, int]:
    """What results with these kinds depend on."""
    return {name: KINDS.get(name).version for name in names}


def cost_of(names: Sequence[str]) -> float:
    """What these kinds cost of a fact, in questions of a plain exam."""
    return sum(KINDS.get(name).cost for name in names)


def check_kinds(names: Sequence[str], tokenizer: Any) -> None:
    """Refuse kinds that a model cannot be asked.

    Raises:
        UnknownNameError: for a kind that there is not.
        ModelError: says what the tokenizer lacks.
    """
    for name in names:
        if (lacking := KINDS.get(name).lacking(tokenizer)) is not None:
            raise ModelError(f"The model cannot be asked by {name!r}: {lacking}.", f"Leave {name!r} out.")
