"""Which spellings a reader takes for the same: letter case, accents, width and gaps make no difference."""

from __future__ import annotations

import unicodedata


def folded(text: str) -> str:
    """The text in Unicode NFKC, case-folded, with single blanks for white space and without accents.

    Accents are the marks on Latin and Greek letters, which are left out in capitals and on keyboards that lack them
    ("Sao Paulo"). Marks of other scripts make other letters (и and й, か and が) and stay; so do letters that are no
    other letter with a mark (ø, ł, ß as "ss").
    """
    if text.isascii():
        return " ".join(text.casefold().split())
    # NFKC once more, as case folding may undo it
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept, base = [], " "
    for letter in unicodedata.normalize("NFD", plain):
        if "\u0300" <= letter <= "\u036f":
            if not unicodedata.name(base, "").startswith(("LATIN", "GREEK")):
                kept.append(letter)
        else:
            base = letter
            kept.append(letter)
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split())
