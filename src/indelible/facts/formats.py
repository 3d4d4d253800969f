"""What the rows of a file of facts mean: this package's own fields, and the pieces that all schemas are read with.

All schemas (those of benchmarks are in benchmarks.py) yield facts of one shape, in which the object follows the prompt
(see joining.py). Where a row names no relation, its template stands for one: facts with the same template share it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from sys import intern
from typing import Any

from indelible.documents import from_json
from indelible.facts.fact import SLOT, Fact, Neighbour
from indelible.facts.joining import is_unspaced
from indelible.showing import cut

LONGEST_ENDING = 4
"""Letters that may follow a subject in an inflected word: Londonban is of London, Oslofjord not of Oslo."""


class RowError(ValueError):
    """Why one row is no fact, cut where its values are long; readers turn it into a row that is left out."""

    def __init__(self, reason: str) -> None:
        super().__init__(cut(reason))


class Row(Mapping[str, Any]):
    """A row's values, which remember what was read of them, so that nothing is passed over in silence.

    An object in a row is a row as well. ``left`` takes, in words, what a reader has to leave of what it read.
    """

    def __init__(self, values: Mapping[str, Any], path: str = "", beside: Row | None = None) -> None:
        self._values, self._path = values, path
        self._read: set[str] = set() if beside is None else beside._read
        self.left: set[str] = set() if beside is None else beside.left

    def __getitem__(self, key: str) -> Any:
        self._read.add(self._path + key)
        value = self._values[key]
        return Row(value, f"{self._path}{key}.", self) if isinstance(value, Mapping) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def unread(self) -> list[str]:
        """Dotted names of what nobody has read and is not empty, and what was left otherwise."""
        return [*self._unread(self._values, self._path), *sorted(self.left)]

    def _unread(self, values: Mapping[str, Any], path: str) -> Iterator[str]:
        for key, value in values.items():
            if f"{path}{key}" not in self._read:
                if value not in (None, "", [], {}):
                    yield f"{path}{key}"
            elif isinstance(value, Mapping):
                yield from self._unread(value, f"{path}{key}.")


@dataclass(frozen=True)
class Schema:
    """One kind of row.

    Attributes:
        keys: those that it is recognised by.
        facts: makes a fact, or several, of (row, id where it has none, source).
        published: of a benchmark, which nobody is to mend: rows that are no facts are skipped.
        passed_over: keys that say nothing an exam could ask.
    """

    keys: tuple[str, ...]
    facts: Callable[[Row, str, str], Fact | Sequence[Fact]]
    published: bool = True
    passed_over: tuple[str, ...] = ()


def to_template(text: str, subject: str) -> str | None:
    """The text with a slot for the subject's first occurrence, or None if the subject is not in it.

    Whole words are preferred, in the same case; then comes a word with an ending of its own, or one in a script without
    spaces, letter by letter. A text with one slot is a template already.

    Raises:
        RowError: if the one slot ends a text that names the subject before it: there it can only mean the object.
    """
    whole = rf"(?<!\w){re.escape(subject)}(?!\w)"
    if text.count(SLOT) == 1:
        if text.rstrip(" .?!").endswith(SLOT) and re.search(whole, text):
            raise RowError(f"{text!r} names the subject {subject!r}, and ends in {SLOT}, which stands for a subject")
        return text
    found = re.search(whole, text) or re.search(whole, text, re.IGNORECASE) or _inflected(text, subject)
    return text[: found.start()] + SLOT + text[found.start() + len(subject) :] if found and SLOT not in text else None


def _inflected(text: str, subject: str) -> re.Match[str] | None:
    for found in re.finditer(rf"(?<![A-Za-z0-9]){re.escape(subject)}(\w*)", text):
        ending = list(takewhile(lambda letter: not is_unspaced(letter), found[1]))
        if is_unspaced(subject[-1]) or len(ending) <= LONGEST_ENDING:
            return found
    return None


def relation_of(template: str) -> str:
    """A name for the relation that a template expresses, for rows that do not name it."""
    return " ".join(template.replace(SLOT, "_").lower().split())


def own_fact(row: Row, default_id: str, source: str) -> Fact:
    """A fact from a row with the fields of ``Fact``; subject, prompt and an object, true or new, must be there."""
    subject = text_at(row, "subject")
    prompt = as_template(_trimmed(text_at(row, "prompt", strip=False)), subject, "prompt")
    new_object = optional_at(row, "new_object")
    true_object = optional_at(row, "true_object")
    if true_object is None and new_object is None:
        raise RowError("has no 'true_object', nor a 'new_object' to be edited into it")
    neighbours = []
    for entry in list_at(row, "neighbours"):
        pair = [entry.get("prompt"), entry.get("answer")] if isinstance(entry, Mapping) else entry
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) and part.strip() for part in pair)
        ):
            raise RowError("'neighbours' must be a list of objects with a 'prompt' and an 'answer'")
        neighbours.append(Neighbour(_trimmed(pair[0]), pair[1].strip()))
    # what many facts share is held once
    return Fact(
        id=optional_at(row, "id") or default_id,
        subject=subject,
        relation=intern(optional_at(row, "relation") or relation_of(prompt)),
        prompt=intern(prompt),
        true_object=intern(true_object or ""),
        new_object=None if new_object is None else intern(new_object),
        paraphrases=tuple(intern(as_template(text, subject, "paraphrase")) for text in texts_at(row, "paraphrases")),
        held_out=tuple(map(intern, as_held_out(texts_at(row, "held_out"), subject))),
        neighbours=tuple(neighbours),
        source=optional_at(row, "source") or source,
        reversal=_reversal(row),
    )


def _reversal(row: Row) -> str:
    template = optional_at(row, "reversal") or ""
    if template and template.count(SLOT) != 1:
        raise RowError(f"the reversal {template!r} must hold one {SLOT}, where the object belongs")
    return template


def as_question(text: str) -> str:
    """A question so put that the answer is what comes next."""
    question = text.removeprefix("nq question:").strip()
    return f"Question: {question if question.endswith('?') else question + '?'} Answer:"


def as_template(text: str, subject: str, what: str) -> str:
    template = to_template(text, subject)
    if template is None:
        raise RowError(f"the {what} {text!r} does not contain the subject {subject!r} once, nor one {SLOT}")
    return template


def as_held_out(texts: tuple[str, ...], subject: str) -> tuple[str, ...]:
    # a held-out wording may also speak of the subject without naming it, as a complete text
    return tuple(to_template(text, subject) or text for text in texts)


def text_at(row: Row, key: str, *, strip: bool = True) -> str:
    if key not in row or row[key] is None:
        raise RowError(f"has no {key!r}")
    value = row[key]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RowError(f"{key!r} is a {_kind(value)}, not text")
    if not value.strip():
        raise RowError(f"{key!r} is blank")
    return value.strip() if strip else value


def optional_at(row: Row, key: str) -> str | None:
    value = row.get(key)
    return None if value is None or value == "" else text_at(row, key)


def texts_at(row: Row, key: str) -> tuple[str, ...]:
    entries = list_at(row, key)
    if not all(isinstance(entry, str) for entry in entries):
        raise RowError(f"{key!r} must be a list of texts")
    return tuple(_trimmed(entry) for entry in entries if entry.strip())


def _trimmed(text: str) -> str:
    """The text without white space around it, but for a line break, and an indentation after it, at its end."""
    bare = text.rstrip()
    return (text if "\n" in text[len(bare) :] else bare).lstrip()


def list_at(row: Row, key: str) -> list[Any]:
    value = row.get(key)
    if value is None or value == "":
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = from_json(value)
        except ValueError as error:
            raise RowError(f"{key!r} starts like a JSON list but is {error}") from None
    elif isinstance(value, str):
        value = [part.strip() for part in value.split("|")]
    if not isinstance(value, list):
        raise RowError(f"{key!r} is a {_kind(value)}, not a list")
    return value


def names_at(row: Mapping[str, Any], key: str) -> list[str]:
    """The names of an answer, as benchmarks list them: a text, a list of texts, or one of lists of further names."""
    names = [
        str(name).strip() for name in _flat(row.get(key)) if isinstance(name, str | int) and not isinstance(name, bool)
    ]
    if not any(names):
        raise RowError(f"has no {key!r}")
    return [name for name in names if name]


def _flat(value: Any) -> Iterator[Any]:
    for entry in value if isinstance(value, list) else [value]:
        yield from _flat(entry) if isinstance(entry, list) else (entry,)


def _kind(value: Any) -> str:
    return "JSON object" if isinstance(value, Mapping) else type(value).__name__
