"""Rewards: small problems from reasoning-gym for reinforcement learning, paid in full or not at all.

A policy gradient learns only from problems that the model sometimes solves and sometimes does not. The generators and
their options were chosen for that, and so that no single answer is right in much more than half of the problems. The
bundled model, sampled at temperature 1 (48 problems of each, 6 answers of 12 tokens), earns a mean of 0.33 on
syllogisms, 0.07 on greatest common divisors and 0.05 on letters; in 88%, 29% and 25% of the problems its six answers
differ in reward, and greedy answers earn 0.50, 0.08 and 0.29. (reasoning-gym's own scorers pay 0.5 for "12" where 2 is
right.) Sums of two digits, coins, bits, calendars, kinship, cubes and simple equations give it even less to learn from.
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
