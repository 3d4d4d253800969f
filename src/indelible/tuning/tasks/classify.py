"""Classification: is a snippet of a film review positive or negative, by the mean rating of some fifteen people?

Snippets that are rated nearer to 0 than ``CLEAR`` are left out, because there people do not agree. The share of raters
on the mean's side of zero is, on average, 0.48 below 0.5, 0.69 between 0.5 and 1, 0.87 between 1 and 1.5, and 0.95 and
more above. What is left are 4,539 positive and 4,484 negative snippets: who always says the same label is right in half
of them, so accuracy means something as it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from indelible.models.bundled.texts import film_reviews
from indelible.tuning.task import TASKS, Example, Task, shuffled

CLEAR = 1.0
"""Distance from 0 up to which a mean rating (-4 to 4) counts as near neutral."""

NEGATIVE, POSITIVE = "negative", "positive"


def classify(seed: int) -> Iterator[Example]:
    """Snippets that are clearly one or the other, in an order drawn from the seed."""
    examples = [
        Example(prompt=snippet.strip(), answer=POSITIVE if rating > 0 else NEGATIVE)
        for rating, snippet in film_reviews()
        if abs(rating) > CLEAR and snippet.strip()
    ]
    return shuffled(examples, seed)


TASKS.register("classify")(Task(classify, labels=(NEGATIVE, POSITIVE)))
