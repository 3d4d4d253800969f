"""Preferences: the bundled conversations, each with an answer that was preferred and one that was not."""

from __future__ import annotations

from collections.abc import Iterator

from indelible.models.bundled.texts import preferences
from indelible.tuning.task import TASKS, Example, Task, shuffled
from indelible.tuning.turns import as_prompt, turns_of


def preference(seed: int) -> Iterator[Example]:
    """300 pairs in an order drawn from the seed. Of a conversation of several turns all are the prompt: the answers
    make no sense without them."""
    examples = [
        Example(
            prompt=as_prompt(turns_of(row["conversations"]) or ()),
            answer=row["chosen"]["value"].strip(),
            rejected=row["rejected"]["value"].strip(),
        )
        for row in preferences()
    ]
    return shuffled(examples, seed)


TASKS.register("preference")(Task(preference))
