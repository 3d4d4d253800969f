"""What came from outside, made fit to be shown: as long as one can read, without power over terminals and spreadsheets.

Facts, generations, names and files are anyone's. They are taken as they are, and escaped where they leave: here is how.
"""

from __future__ import annotations

import re

LONGEST_MESSAGE = 2_000
"""Letters of a message; what is at fault may be a line of 50 MB."""
GAP = " [...] "
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""All control characters but tabs and line feeds, those that turn the direction of what follows, and halves of
surrogate pairs, as which bytes of a file's name come that are no UTF-8."""
_FORMULA = re.compile(r"[=+\-@\t\r＝＋－＠]")  # noqa: RUF001
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?%?", re.IGNORECASE)


def cut(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """A text of at most so many letters: of a longer one its beginning and its end."""
    if len(text) <= longest:
        return text
    end = (longest - len(GAP)) // 3
    return text[: longest - len(GAP) - end] + GAP + text[len(text) - end :]


def listing(names: list[str], most: int = 20) -> str:
    """Names on one line; of many the first, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def visible(text: str) -> str:
    """A text for a terminal: characters that would steer it are written out, as ``\\u001b``, which JSON reads back."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def no_formula(cell: object) -> object:
    """A cell of CSV that spreadsheets take for a text or a number: what they would run has an apostrophe before it."""
    run = isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if run else cell
