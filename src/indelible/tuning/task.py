"""Tasks: where training examples come from, one file per source.

A task turns a seed into a stream of examples in a random order. Streams are lazy, so that a generator of problems may
be endless and a finite source simply ends; whoever trains takes as many as are needed, first the held-out ones.

Nothing here, and no task's module, imports torch: names and labels are read when a study is planned.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from indelible.registry import Registry


@dataclass(frozen=True)
class Example:
    """One training example as text.

    Attributes:
        prompt: what is given; empty for plain text.
        answer: what is to be learned; follows the prompt after a space. For classification a label word, for rewards
            the answer that is known to be right.
        group: examples of one group (the paragraphs of one document) are all training or all held out; empty for one
            that stands alone.
        rejected: for preferences: the answer that was not preferred.
        score: for rewards: verifies an answer in the model's own words, from 0 (wrong) to 1 (right).
    """

    prompt: str
    answer: str
    group: str = ""
    rejected: str = ""
    score: Callable[[str], float] | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """All that a model might learn from it as one text: prompt, answer and rejected answer."""
        return " ".join(part for part in (self.prompt, self.answer, self.rejected) if part)


@dataclass(frozen=True)
class Task:
    """A source of examples.

    Attributes:
        stream: examples by seed, made lazily, the same for the same seed; DataError if the source cannot be read.
        labels: for classification, the label words; each answer is one of them.
        origin: for users' own data, what the examples were made of: the source, the columns, the rows left out.
    """

    stream: Callable[[int], Iterator[Example]]
    labels: tuple[str, ...] = ()
    origin: str = ""

    def __call__(self, seed: int) -> Iterator[Example]:
        """The stream of that seed."""
        return self.stream(seed)


TASKS: Registry[Task] = Registry("task", "indelible.tuning.tasks", group="indelible.tasks")


def shuffled(examples: Sequence[Example], seed: int) -> Iterator[Example]:
    """The examples in an order drawn from the seed; those of one group stay together, in their own order.

    Scattered over the stream, all groups would be met while the held-out rows are drawn, and none left to train on.
    """
    units: dict[object, list[Example]] = {}
    for number, example in enumerate(examples):
        units.setdefault(example.group or number, []).append(example)
    order = list(units.values())
    random.Random(seed).shuffle(order)
    for unit in order:
        yield from unit
