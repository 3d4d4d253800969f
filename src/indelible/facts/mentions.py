"""Which training lines must be left out, so that fine-tuning does not teach what the study measures.

A line is dropped

- if it mentions the subject of a fact, or
- if it states one of the fact's objects, the true or the new one, together with the relation: the object and one of
  the relation's keywords occur in the same line.

A name is mentioned if it occurs as whole words, whatever the case, the accents, the kind of apostrophe or the width
of the gaps; an article before it does not count, and a possessive 's after it changes nothing. Names of one or two
letters are the exception: they are compared in their own case, so that "he" is not helium ("He"). Scripts that set no
spaces between words, and Korean, which joins endings on, have no whole words: there a name is mentioned wherever it
stands.

The keywords of a relation are the content words of its prompt, and those of two or more of its other wordings, without
a final s. Content words have three letters or more and are neither function words nor words that fit any relation
("name", "called", "number"). The filter would rather drop a line too many than leave one in.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from indelible.facts.fact import SLOT, Fact
from indelible.facts.joining import runs_on

WORD = re.compile(r"\w+")
ARTICLES = ("the ", "a ", "an ")
CASED_LENGTH = 2
NO_KEYWORDS = (
    "about after all also always among and any are around because been before being between both but can could "
    "did does every for from had has have having her here him his how into its itself just like many may might "
    "more most much must near not now off often once one only onto other our out over own same she should "
    "since some such than that the their them then there these they thing things this those through too under "
    "until upon used uses using usually very was were what when where which while who whom whose why will with "
    "within without would yet you your answer answers ask asks asked belong belongs book books call called "
    "come comes find finds found give gives given kind know known knows lie lies list listed lists made make "
    "makes name named names number people person question say says see show shows someone tell two use way "
    "whole word words write written "
)
"""Words that tell nothing about a relation, with spaces between them."""


@dataclass(frozen=True)
class Mention:
    """Why a line must be left out: the fact that it speaks of, and what in it does, in words."""

    fact_id: str
    reason: str


@dataclass(frozen=True)
class _Name:
    """A subject (``relation`` None), or an object that counts near a keyword of its relation.

    ``pattern`` is for a folded line: as it stands if ``cased``, else case-folded.
    """

    pattern: re.Pattern[str]
    cased: bool
    fact_id: str
    text: str
    relation: str | None


class Mentions:
    """Tells the lines that may be trained on from those that touch a fact.

    Takes time in proportion to a line, not to the number of facts: names are found by their case-folded first word, or
    first letter where words have no ends.
    """

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._keywords = relation_keywords(facts)
        self._names: dict[str, list[_Name]] = defaultdict(list)
        seen = set[tuple[str | None, str]]()
        for fact in facts:
            objects = [(fact.relation, text) for text in (fact.true_object, fact.new_object) if text]
            for relation, text in ((None, fact.subject), *objects):
                bare = _bare(text)
                first = WORD.search(bare)
                if first is None or (relation, bare) in seen:
                    continue
                seen.add((relation, bare))
                cased = len(bare) <= CASED_LENGTH
                gaps = r"\s+".join(re.escape(part) for part in (bare if cased else bare.casefold()).split())
                begins, ends = ("" if runs_on(bare[end]) else mark for end, mark in ((0, r"(?<!\w)"), (-1, r"(?!\w)")))
                name = _Name(re.compile(f"{begins}{gaps}{ends}"), cased, fact.id, text, relation)
                word = first.group().casefold()
                self._names[word[0] if runs_on(word[0]) else word].append(name)

    def in_line(self, line: str) -> Mention | None:
        """The first mention in the line; None where no fact speaks against it."""
        folded = _fold(line)
        lowered = folded.casefold()
        words = set(WORD.findall(lowered))
        singular = set(map(_singular, words))
        begun = words if lowered.isascii() else words.union(lowered)
        for name in (name for word in sorted(begun & self._names.keys()) for name in self._names[word]):
            if not name.pattern.search(folded if name.cased else lowered):
                continue
            if name.relation is None:
                return Mention(name.fact_id, f"mentions the subject {name.text!r}")
            keywords = self._keywords[name.relation]
            if near := [word for word in keywords if (word in lowered if runs_on(word[0]) else word in singular)]:
                reason = f"states the object {name.text!r} with {min(near)!r} of {name.relation!r}"
                return Mention(name.fact_id, reason)
        return None


def relation_keywords(facts: Iterable[Fact]) -> dict[str, frozenset[str]]:
    """Relation -> its keywords, lower-case, without a final s; see the module's text for how they are chosen."""
    prompts: dict[str, set[str]] = defaultdict(set)
    others: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        prompts[fact.relation].add(fact.prompt)
        others[fact.relation].update(fact.paraphrases, fact.held_out)
    filler = frozenset(NO_KEYWORDS.split())
    keywords = {}
    for relation, wordings in prompts.items():
        counts = Counter(word for wording in others[relation] for word in _content_words(wording, filler))
        repeated = {word for word, count in counts.items() if count >= 2}
        keywords[relation] = frozenset(repeated.union(*(_content_words(prompt, filler) for prompt in wordings)))
    return keywords


def _content_words(wording: str, filler: frozenset[str]) -> set[str]:
    words = WORD.findall(_fold(wording.replace(SLOT, " ")).casefold())
    return {_singular(word) for word in words if len(word) >= 3 and word not in filler and not word.isdigit()}


def _bare(name: str) -> str:
    folded = _fold(name).strip()
    for article in ARTICLES:
        if folded.lower().startswith(article):
            return folded[len(article) :].strip()
    return folded


def _fold(text: str) -> str:
    if text.isascii():
        return text
    letters = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    if any(map(runs_on, set(plain))):
        plain = "".join(
            f" {letter}" if before.isalnum() and letter.isalnum() and runs_on(before) != runs_on(letter) else letter
            for before, letter in zip(f" {plain}", plain, strict=False)
        )
    return plain.replace("\u2019", "'").replace("\u2018", "'")


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word
