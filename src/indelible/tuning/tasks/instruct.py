"""Instructions: the bundled sample of Alpaca, everyday instructions with written answers."""

from __future__ import annotations

from collections.abc import Iterator

from indelible.models.bundled.texts import instructions
from indelible.tuning.task import TASKS, Example, Task, shuffled


def instruct(seed: int) -> Iterator[Example]:
    """999 instructions in an order drawn from the seed; what an instruction is about follows it on its own line."""
    examples = [
        Example(prompt="\n".join(filter(None, (row["instruction"].strip(), row["input"].strip()))), answer=answer)
        for row in instructions()
        if (answer := row["output"].strip())
    ]
    return shuffled(examples, seed)


TASKS.register("instruct")(Task(instruct))
