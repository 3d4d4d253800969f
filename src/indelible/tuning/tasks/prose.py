"""Encyclopedia prose: passages of Wikipedia articles, for causal language modelling on even, factual text.

Beside the web text of ``text`` it asks what fine-tuning on writing of the same kind as a model's knowledge does to it.
There are thirty articles of very unequal length, so each gives a few passages and no article is most of the stream.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from indelible.models.bundled.texts import encyclopedia_articles
from indelible.tuning.task import TASKS, Example, Task

PASSAGE_WORDS = 100
"""Words to a passage: some 130 tokens, which the objective cuts into blocks."""

PASSAGES = 20
"""Passages of one article that are read before the next begins; the longest articles have 180."""


def prose(seed: int) -> Iterator[Example]:
    """Passages in rounds: some of every article, article by article in an order drawn from the seed, then more."""
    articles = [_passages(article, f"article {number}") for number, article in enumerate(encyclopedia_articles())]
    random.Random(seed).shuffle(articles)
    for start in range(0, max(map(len, articles), default=0), PASSAGES):
        for passages in articles:
            yield from passages[start : start + PASSAGES]


def _passages(article: str, group: str) -> list[Example]:
    words = article.split()
    return [
        Example(prompt="", answer=" ".join(words[start : start + PASSAGE_WORDS]), group=group)
        for start in range(0, len(words), PASSAGE_WORDS)
    ]


TASKS.register("prose")(Task(prose))
