"""Rewards: small problems from reasoning-gym, each with its generator's own scorer, for reinforcement learning.

A policy gradient learns only from problems that the model sometimes solves and sometimes does not. The generators and
their options were chosen for that, and so that no single answer is right in much more than half of the problems. The
bundled model, sampled at temperature 1 (48 problems, 6 answers of 12 tokens each), earns a mean of 0.26 on syllogisms,
0.10 on greatest common divisors and 0.06 on letters; in half to three quarters of the problems its six answers differ
in reward, and greedy answers earn 0.42, 0.25 and 0.38. Sums of two digits (0.04), coins, bits, calendars, kinship,
cubes and simple equations (0.03 and less) give it next to nothing to learn from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from indelible.tuning.answers import found_answer
from indelible.tuning.problems import problems
from indelible.tuning.task import TASKS, Example, Task

GENERATORS: Mapping[str, Mapping[str, Any]] = {
    "syllogism": {"invalid_ratio": 0.5},
    "gcd": {"min_value": 1, "max_value": 60},
    "letter_counting": {"min_words": 5, "max_words": 8},
}


def reward(seed: int) -> Iterator[Example]:
    """Problems from all generators in turn."""
    for prompt, answer in problems(GENERATORS, seed):
        yield Example(prompt, answer, score=partial(found_answer, answer=answer))


TASKS.register("reward")(Task(reward))
