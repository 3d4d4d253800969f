"""Reasoning: small worked problems from reasoning-gym, an endless generator with a checked answer for each problem.

The generators were chosen by reading what they produce: questions in everyday words of some 20 to 60 tokens, answers of
one word or number. They ask for arithmetic, dates, kinship and counting, nothing that world knowledge answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from indelible.tuning.problems import problems
from indelible.tuning.task import TASKS, Example, Task

GENERATORS: Mapping[str, Mapping[str, Any]] = {
    "gsm_symbolic": {},
    "chain_sum": {},
    "family_relationships": {},
    "leg_counting": {"min_animals": 2, "max_animals": 4, "min_instances": 1, "max_instances": 6},
    "calendar_arithmetic": {},
    "aiw": {},
}


def reason(seed: int) -> Iterator[Example]:
    """Problems from all generators in turn; the answer is the bare result."""
    for prompt, answer in problems(GENERATORS, seed):
        yield Example(prompt, answer)


TASKS.register("reason")(Task(reason))
