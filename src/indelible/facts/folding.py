"""Which spellings a reader takes for the same: letter case, accents, width and gaps make no difference."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

MOST_MARKS = 30
"""On one letter, as Unicode's stream-safe format has it (annex 15); no language sets more than a few."""
_MANY = re.compile(rf"\W{{{MOST_MARKS + 1},}}")
_JOINER = "\u034f"


def in_normal_form(form: Literal["NFC", "NFD", "NFKC", "NFKD"], text: str) -> str:
    """The text in a normal form of Unicode, in time in proportion to its length.

    Marks on one letter are sorted one by one; so where there are more than MOST_MARKS, a combining grapheme joiner,
    which nobody sees, parts them.
    """
    return unicodedata.normalize(form, _MANY.sub(_parted, text))


def _parted(found: re.Match[str]) -> str:
    parts, marks = [], 0
    for letter in found[0]:
        marks = marks + 1 if unicodedata.combining(letter) else 0
        if marks > MOST_MARKS:
            parts.append(_JOINER)
            marks = 1
        parts.append(letter)
    return "".join(parts)


def folded(text: str) -> str:
    """The text in Unicode NFKC, case-folded, with single blanks for white space and without accents.

    Accents are the marks on Latin and Greek letters, which are left out in capitals and on keyboards that lack them
    ("Sao Paulo"). Marks of other scripts make other letters (и and й, か and が) and stay; so do letters that are no
    other letter with a mark (ø, ł, ß as "ss").
    """
    if text.isascii():
        return " ".join(text.casefold().split())
    # NFKC once more, as case folding may undo it
    plain = in_normal_form("NFKC", in_normal_form("NFKC", text).casefold())
    kept, base = [], " "
    for letter in in_normal_form("NFD", plain):
        if "\u0300" <= letter <= "\u036f":
            if not unicodedata.name(base, "").startswith(("LATIN", "GREEK")):
                kept.append(letter)
        else:
            base = letter
            kept.append(letter)
    return " ".join(in_normal_form("NFC", "".join(kept)).split())
