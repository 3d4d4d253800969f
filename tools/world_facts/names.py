"""A bare (subject, relation, object) on its way from the data packages to a fact, and how spellings are compared."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Triple:
    """One statement of a data package, not yet put into words.

    Attributes:
        relation: one of those that ``wordings.toml`` (beside the facts) puts into words.
        subject: as it stands inside a sentence.
        true_object: as it follows the prompt.
        source: the package or packages that say so; one relation's are the same for all of its facts.
    """

    relation: str
    subject: str
    true_object: str
    source: str

    @property
    def id(self) -> str:
        """The fact's identifier: its relation and the subject in plain letters."""
        return f"{self.relation}:{re.sub(r'[^a-z0-9]+', '-', fold(self.subject)).strip('-')}"


def fold(name: str) -> str:
    """A spelling to compare names by: lower-case plain letters, without a leading article, "St." written out."""
    plain = name
    if not name.isascii():
        letters = unicodedata.normalize("NFKD", name)
        plain = "".join(letter for letter in letters if not unicodedata.combining(letter)).replace("\u2019", "'")
    plain = plain.lower().replace("&", "and").strip().removeprefix("the ")
    return re.sub(r"\bst\.? ", "saint ", plain) if "st" in plain else plain


def shares_word(left: str, right: str) -> bool:
    """Whether two names have a whole word in common, so that one gives the other away ("Mexico", "Mexico City")."""
    return bool(set(re.findall(r"\w+", fold(left))) & set(re.findall(r"\w+", fold(right))))
