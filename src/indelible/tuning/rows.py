"""Rows for training and for the held-out loss: drawn from a task, filtered, and never shared between the two.

Examples that speak of an edited or intrinsic fact are left out (training on them would teach or contradict the very
knowledge whose retention is measured), and so are repeats. What is left out is made good from further down the stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerBase

from indelible.errors import DataError
from indelible.facts.fact import Fact
from indelible.facts.mentions import Mentions
from indelible.tuning.objective import Objective, Row
from indelible.tuning.settings import TuningSettings
from indelible.tuning.task import Example, Task

DRAW = 64
"""Examples read from the stream at a time."""

PATIENCE = 50
"""Examples read for each row that is wanted before a stream that yields next to nothing is given up."""


@dataclass(frozen=True)
class DroppedExample:
    """The text of an example left out because it speaks of a fact, and why it counts as speaking of it."""

    text: str
    fact_id: str
    reason: str


@dataclass(frozen=True)
class Rows:
    """What a run trains on and what it is judged by: no text, and no group of texts, is in both."""

    train: tuple[Row, ...]
    heldout: tuple[Row, ...]
    dropped: tuple[DroppedExample, ...]

    def with_heldout_in_training(self) -> Rows:
        """The held-out rows in the place of the first training rows, whose number stays: nothing is held out then."""
        train = (*self.heldout, *self.train[len(self.heldout) :])[: len(self.train)]
        return replace(self, train=train)


def normalised(text: str) -> str:
    """The text as it counts for telling repeats: case folded, letters and digits only, single spaces."""
    return " ".join("".join(letter if letter.isalnum() else " " for letter in text.casefold()).split())


def draw_rows(
    task: Task,
    objective: Objective[Any],
    tokenizer: PreTrainedTokenizerBase,
    settings: TuningSettings,
    *,
    facts: Sequence[Fact],
    seed: int,
) -> Rows:
    """Take held-out rows, then training rows, of a task's examples that speak of no fact, in the order of the seed.

    With a dose there are as many training rows as a pass over them needs to read it.

    Raises:
        DataError: if there are fewer than wanted; of training rows one step's are enough where the task ends early.
    """
    heldout_wanted = settings.heldout_examples
    train_wanted = settings.train_examples or settings.steps_at_most * settings.rows_per_step
    tokens_wanted = 0 if settings.train_examples or not settings.dose else settings.dose[-1]
    times = objective.work(settings).readings
    heldout, train, tokens = list[Row](), list[Row](), 0
    groups = set[str]()
    stream = _Stream(task(seed), facts)
    for example in stream.take(PATIENCE * (heldout_wanted + train_wanted) + DRAW):
        room = heldout_wanted - len(heldout)
        if not room and example.group and example.group in groups:
            continue
        rows = objective.rows(tokenizer, example, settings, task.labels)
        if rows and room:
            groups.add(example.group)
            heldout += rows[:room]
        elif rows:
            train += rows
            tokens += times * sum(row.tokens for row in rows)
        if len(train) >= train_wanted and tokens >= tokens_wanted:
            break
    train = train if tokens_wanted else train[:train_wanted]
    at_least = min(train_wanted, settings.rows_per_step)
    for kind, found, wanted in (("held-out", heldout, heldout_wanted), ("training", train, at_least)):
        if len(found) < wanted:
            raise DataError(
                f"Only {len(found)} of {wanted} {kind} rows of at most {settings.max_tokens} tokens could be made of "
                f"{stream.read} examples, {len(stream.dropped)} of which speak of a fact.",
                "Raise max_tokens, lower heldout_examples or batch_size, or name another task.",
            )
    return Rows(tuple(train), tuple(heldout), tuple(stream.dropped))


def count_reasons(dropped: Sequence[DroppedExample]) -> dict[str, int]:
    """How many examples were left out for each reason, most frequent first."""
    return dict(Counter(example.reason for example in dropped).most_common())


class _Stream:
    """A stream of examples without repeats and without those that speak of a fact; counts what it read and dropped."""

    def __init__(self, examples: Iterator[Example], facts: Sequence[Fact]) -> None:
        self.examples = examples
        self.mentions = Mentions(facts)
        self.read = 0
        self.dropped: list[DroppedExample] = []
        self._seen: set[str] = set()

    def take(self, limit: int) -> Iterator[Example]:
        while self.read < limit and (drawn := list(islice(self.examples, DRAW))):
            self.read += len(drawn)
            first = dict[str, Example]()
            for example in drawn:
                first.setdefault(normalised(example.text), example)
            kept = []
            for text, example in first.items():
                if text in self._seen:
                    continue
                if (found := self.mentions.in_line(example.text)) is None:
                    kept.append(example)
                else:
                    self.dropped.append(DroppedExample(example.text, found.fact_id, found.reason))
            self._seen |= first.keys()
            yield from kept
