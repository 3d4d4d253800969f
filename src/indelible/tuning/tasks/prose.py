"""Encyclopedia prose: passages of Wikipedia articles, for causal language modelling on even, factual text.

Beside the web text of ``text`` it asks what fine-tuning on writing of the same kind as a model's knowledge does to it.
There are thirty articles of very unequal length, so each gives a few passages and no article is most of the stream.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from indelible.models.bundled.texts import encyclopedia_articles
from indelible.tuning.task import TASKS, Example, Task

PASSAGES = 20
"""Passages of one article that are read before the next begins; the longest articles have 180."""


def prose(seed: int) -> Iterator[Example]:
    """Passages in rounds: some of every article, article by article in an order drawn from the seed, then more."""
    articles = list(enumerate(encyclopedia_articles()))
    random.Random(seed).shuffle(articles)
    for start in range(0, max((len(passages) for _, passages in articles), default=0), PASSAGES):
        for number, passages in articles:
            for passage in passages[start : start + PASSAGES]:
                yield Example("", passage, group=f"article {number}")


TASKS.register("prose")(Task(prose))
