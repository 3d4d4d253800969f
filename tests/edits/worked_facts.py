"""Facts and text for the tests of the editors: subjects first and last in their prompts, short and long targets."""

from __future__ import annotations

from indelible.facts.fact import Fact
from tiny_models import SENTENCES

CORPUS = tuple(
    f"{first} {second} {third}" for first in SENTENCES for second in SENTENCES for third in reversed(SENTENCES)
)


def fact(subject: str, prompt: str, new: str | None, true: str = "Paris") -> Fact:
    """A fact named after its subject and prompt."""
    return Fact(f"{subject}/{prompt}", subject, "relation", prompt, true, new)


CAPITALS = tuple(
    fact(subject, "Name the capital of {}", new)
    for subject, new in (("France", "Oslo"), ("Norway", "Lima"), ("Peru", "Paris"), ("Denmark", "Kyoto"))
)

VARIED = (
    fact("A", "{} is", "gold"),  # one token at the very start of the text: nothing stands before it
    fact("France", "The capital of {} is", "Oslo"),
    fact("Brazil", "In {} people speak", "a"),
    fact("The quick brown fox", "{} jumps over", "the Arabic dog"),
    fact("Q", "{}: the answer to every question that anyone asked is", "42"),
    fact("Zanzibar and Pemba", "Who would visit {}? The answer is", "the Spanish"),
    fact("Norway", "{}, whose capital is", "Lima"),
    fact("7", "What is {}", "x"),
    fact("Egypt", "People in {} speak", "Portuguese"),
    fact("gold", "The chemical symbol of {} is", "krone"),
    fact("Denmark", "While it rains in the north of Spain, the currency of {} is", "Au"),
    fact("Lima", "{} is the capital of", "Japan"),
    fact("Kyoto", "The lazy dog lives in {}, a city in", "Peru"),
    fact("B", "{} is", "16"),
    fact("X", "{}", "is"),
    fact("Oslo", "It is true that {} is in", "France"),
)
