"""Plain text: the paragraphs of web documents, for causal language modelling."""

from __future__ import annotations

import random
from collections.abc import Iterator

from indelible.models.bundled.texts import web_text
from indelible.tuning.task import TASKS, Example, Task

MIN_WORDS = 8
"""Shorter lines are menus, captions and addresses rather than prose."""


def text(seed: int) -> Iterator[Example]:
    """Paragraphs of the bundled web documents, document by document in an order drawn from the seed."""
    documents = web_text()
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)
    for number in order:
        yield from paragraphs(documents[number], group=f"document {number}")


def paragraphs(document: str, group: str) -> Iterator[Example]:
    """The paragraphs of one document, white space made single, as examples that belong together."""
    for line in document.splitlines():
        words = line.split()
        if len(words) >= MIN_WORDS:
            yield Example(prompt="", answer=" ".join(words), group=group)


TASKS.register("text")(Task(text))
