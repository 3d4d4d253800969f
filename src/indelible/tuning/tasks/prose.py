"""Prose at length: encyclopedia articles, a manual and web documents, for training on a million tokens without repeats.

Of some 1.25 million tokens 42 in 100 are Wikipedia's, 45 Django's manual and 13 web documents (those of ``text``). They
come mixed, section by section: a section is what is trained on or held out whole, while other sections of its article
may be on the other side.
"""

from __future__ import annotations

from collections.abc import Iterator

from indelible.models.bundled.texts import article_sections, manual_sections, web_text
from indelible.tuning.task import TASKS, Example, Task, shuffled
from indelible.tuning.tasks.text import paragraphs


def prose(seed: int) -> Iterator[Example]:
    """Paragraphs, section by section in an order drawn from the seed."""
    examples = [
        Example("", paragraph, group=section)
        for sections in (article_sections(), manual_sections())
        for section, found in sections.items()
        for paragraph in found
    ]
    for number, document in enumerate(web_text()):
        examples += paragraphs(document, group=f"document {number}")
    return shuffled(examples, seed)


TASKS.register("prose")(Task(prose))
