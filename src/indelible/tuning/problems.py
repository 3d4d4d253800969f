"""Problems of reasoning-gym by seed, for the tasks that teach their answers and those that reward them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PROBLEMS = 1_000_000
"""Problems per seed and generator. Problem ``i`` is seeded with ``seed + i``, so seeds are spaced by as much."""


def problems(generators: Mapping[str, Mapping[str, Any]], seed: int) -> Iterator[tuple[str, str]]:
    """Problems from all generators (name -> options) in turn, each as a prompt and its answer."""
    # torch, which it imports, is needed only once problems are made
    from indelible.tuning.randomness import kept_random_state

    with kept_random_state():  # importing it draws from Python's own generator
        from reasoning_gym import create_dataset

    datasets = [
        create_dataset(name, seed=seed * PROBLEMS, size=PROBLEMS, **options) for name, options in generators.items()
    ]
    for number in range(PROBLEMS):
        for dataset in datasets:
            problem = dataset[number]
            yield " ".join(str(problem["question"]).split()) + "\nAnswer:", str(problem["answer"]).strip()
