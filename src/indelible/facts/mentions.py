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
from functools import cached_property

from indelible.facts.fact import SLOT, Fact
from indelible.facts.folding import in_normal_form
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
    """A subject (``relation`` None), or an object that counts near a keyword of its relation; ``bare`` is its text,
    folded and without an article, ``place`` its first word and its number."""

    place: tuple[str, int]
    bare: str
    fact_id: str
    text: str
    relation: str | None

    @property
    def cased(self) -> bool:
        """Whether it is found in a folded line as that stands; else in a case-folded one."""
        return len(self.bare) <= CASED_LENGTH

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What finds it."""
        gaps = r"\s+".join(map(re.escape, (self.bare if self.cased else self.bare.casefold()).split()))
        ends = zip((0, -1), (r"(?<!\w)", r"(?!\w)"), strict=True)
        before, after = ("" if runs_on(self.bare[end]) else mark for end, mark in ends)
        return re.compile(f"{before}{gaps}{after}")


class Mentions:
    """Tells the lines that may be trained on from those that touch a fact.

    Takes time in proportion to a line, and not to the number of facts, however alike their names are: what is looked up
    are the line's runs of words, as long as names that begin with the same word are.
    """

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._keywords = relation_keywords(facts)
        self._names: dict[tuple[str, ...], list[_Name]] = defaultdict(list)
        self._lengths: dict[str, set[int]] = defaultdict(set)
        seen = set[tuple[str | None, str]]()
        for fact in facts:
            objects = [(fact.relation, text) for text in (fact.true_object, fact.new_object) if text]
            for relation, text in ((None, fact.subject), *objects):
                bare = _bare(text)
                words = tuple(_words(bare.casefold()))
                if words and (relation, bare) not in seen:
                    seen.add((relation, bare))
                    name = _Name((words[0], len(seen)), bare, fact.id, text, relation)
                    self._names[words].append(name)
                    self._lengths[words[0]].add(len(words))

    def in_line(self, line: str) -> Mention | None:
        """A mention in the line, of several always the same; None where no fact speaks against it."""
        folded = _fold(line)
        lowered = folded.casefold()
        words = _words(lowered)
        runs = {
            tuple(words[place : place + length])
            for place, word in enumerate(words)
            for length in self._lengths.get(word, ())
        }
        found = (name for run in runs & self._names.keys() for name in self._names[run])
        singular = set(map(_singular, WORD.findall(lowered)))
        for name in sorted(found, key=lambda name: name.place):
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
    letters = in_normal_form("NFKD", text)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    if any(map(runs_on, set(plain))):
        plain = "".join(
            f" {letter}" if before.isalnum() and letter.isalnum() and runs_on(before) != runs_on(letter) else letter
            for before, letter in zip(f" {plain}", plain, strict=False)
        )
    return plain.replace("\u2019", "'").replace("\u2018", "'")


def _words(text: str) -> list[str]:
    """The words of a folded text; where they have no ends to be seen, letters."""
    words = WORD.findall(text)
    if text.isascii():
        return words
    return [part for word in words for part in (word if any(map(runs_on, word)) else (word,))]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word
