"""Tasks: where training examples come from, one file per source.

A task turns a seed into a stream of examples in a random order. Streams are lazy, so that a generator of problems may
be endless and a finite source simply ends; whoever trains takes as many as are needed, first the held-out ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from indelible.registry import Registry


@dataclass(frozen=True)
class Example:
    """One training example as text.

    Attributes:
        prompt: what is given; empty for plain text.
        answer: what is to be learned; follows the prompt after a space.
        group: examples of one group (the paragraphs of one document) are never split between training and held-out;
            empty for an example that stands alone.
    """

    prompt: str
    answer: str
    group: str = ""

    @property
    def text(self) -> str:
        """Prompt and answer as one text."""
        return f"{self.prompt} {self.answer}" if self.prompt else self.answer


class Task(Protocol):
    """A source of examples."""

    def __call__(self, seed: int) -> Iterator[Example]:
        """A stream of examples; the same seed gives the same stream.

        Raises:
            DataError: if the source cannot be read.
        """
        ...


TASKS: Registry[Task] = Registry("task", "indelible.tuning.tasks", "indelible.tasks")
