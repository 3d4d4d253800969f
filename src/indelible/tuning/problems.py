"""Problems of reasoning-gym by seed, for the tasks that teach their answers and those that reward them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

PROBLEMS = 1_000_000
"""Problems per seed and generator. Problem ``i`` is seeded with ``seed + i``, so seeds are spaced by as much."""


def problems(generators: Mapping[str, Mapping[str, Any]], seed: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Problems from all generators (name -> options) in turn, each with the generator that made it and can score
    answers to it."""
    # torch, which it imports, is needed only once problems are made
    from indelible.tuning.randomness import kept_random_state

    with kept_random_state():  # importing it draws from Python's own generator
        from reasoning_gym import create_dataset

    datasets = [
        create_dataset(name, seed=seed * PROBLEMS, size=PROBLEMS, **options) for name, options in generators.items()
    ]
    for number in range(PROBLEMS):
        for dataset in datasets:
            yield dataset, dataset[number]


def worded(problem: Mapping[str, Any]) -> str:
    """A problem as a prompt: white space made single, and asked for its answer."""
    return " ".join(str(problem["question"]).split()) + "\nAnswer:"
