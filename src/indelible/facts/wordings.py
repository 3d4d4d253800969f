"""More wordings for an edit than a fact brings along.

Editing a fact in several wordings at once makes it generalise and, it is said, last. A fact's own paraphrases come
first. When they do not suffice, the prompt is put behind an opening that says nothing about the relation, which works
for any fact. Wordings that are kept apart for judging generalization are never used.
"""

from __future__ import annotations

from indelible.errors import EditError
from indelible.facts.fact import Fact

CLAUSE_OPENINGS = (
    "It is well known that",
    "As everyone knows,",
    "Most people agree that",
    "It is a fact that",
    "The teacher explained that",
    "According to the encyclopedia,",
    "We can be sure that",
    "As far as anyone can tell,",
    "The book says that",
    "It has often been pointed out that",
    "To the best of our knowledge,",
    "Everyone who has looked it up will tell you that",
)
"""Openings that run on into a statement."""

SENTENCE_OPENINGS = (
    "Here is something to remember.",
    "This is easy to look up.",
    "The next line comes from a reference book.",
    "Here is what the notes say.",
    "There is no doubt about this.",
    "Let us check one more fact.",
    "The quiz went on.",
    "This came up in class today.",
    "A friend asked about this yesterday.",
    "One thing should be clear.",
    "Now to something else.",
    "The following is common knowledge.",
)
"""Openings after which any prompt can stand, a question too."""

LOWERED = (
    "A An As At By For From If In It Its Most My On One Our People Someone That The Their There These This To When"
)
"""First words that lose their capital inside a sentence; all others may be names. With spaces between them."""


def editing_wordings(fact: Fact, k: int) -> list[str]:
    """The k wordings, beside its prompt, in which a fact is edited: templates with one slot each, all different.

    Raises:
        EditError: when there are fewer than k, saying how many there are.
    """
    if k < 0:
        raise EditError(f"Cannot edit with {k} paraphrases.", "Ask for 0 or more.")
    by_text: dict[str, str] = {}
    for template in (*fact.paraphrases, *_rewrites(fact.prompt)):
        by_text.setdefault(fact.text(template), template)
    taken = {fact.text(), *map(fact.text, fact.held_out)}
    wordings = [template for text, template in by_text.items() if text not in taken]
    if k > len(wordings):
        raise EditError(
            f"{k} paraphrases were asked for, but only {len(wordings)} can be made of the fact {fact.id!r}.",
            f"Ask for {len(wordings)} or fewer, or give the fact more paraphrases.",
        )
    return wordings[:k]


def _rewrites(prompt: str) -> list[str]:
    sentences = [f"{opening} {prompt}" for opening in SENTENCE_OPENINGS]
    # a question, or a prompt of several sentences, cannot follow "It is well known that"
    if any(mark in prompt for mark in "?:;!") or ". " in prompt:
        return sentences
    first, space, rest = prompt.partition(" ")
    clause = f"{first.lower() if first in LOWERED.split() else first}{space}{rest}"
    return [*(f"{opening} {clause}" for opening in CLAUSE_OPENINGS), *sentences]
