"""Reasoning: small worked problems from reasoning-gym, an endless generator with a checked answer for each problem.

The generators were chosen by reading what they produce: questions in everyday words of some 20 to 60 tokens, answers of
one word or number. They ask for arithmetic, dates, kinship and counting, nothing that world knowledge answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from indelible.tuning.randomness import kept_random_state
from indelible.tuning.tasks import TASKS, Example

GENERATORS: Mapping[str, Mapping[str, Any]] = {
    "gsm_symbolic": {},
    "chain_sum": {},
    "family_relationships": {},
    "leg_counting": {"min_animals": 2, "max_animals": 4, "min_instances": 1, "max_instances": 6},
    "calendar_arithmetic": {},
    "aiw": {},
}

PROBLEMS = 1_000_000
"""Problems per seed and generator. Problem ``i`` is seeded with ``seed + i``, so seeds are spaced by as much."""


@TASKS.register("reason")
def reason(seed: int) -> Iterator[Example]:
    """Problems from all generators in turn; the answer is the bare result."""
    with kept_random_state():  # importing it draws from Python's own generator
        from reasoning_gym import create_dataset

    datasets = [
        create_dataset(name, seed=seed * PROBLEMS, size=PROBLEMS, **options) for name, options in GENERATORS.items()
    ]
    for number in range(PROBLEMS):
        for dataset in datasets:
            problem = dataset[number]
            question = " ".join(str(problem["question"]).split())
            yield Example(prompt=f"{question}\nAnswer:", answer=str(problem["answer"]).strip())
