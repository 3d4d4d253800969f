"""What the rows of each known benchmark mean: one function per schema, from a row to a fact.

All of them yield facts of one shape, in which the object follows the prompt after a space:

- ``indelible``: the package's own fields, see ``Fact``. In a CSV, several wordings stand in one field, with ``|``
  between them, and neighbours as a JSON list.
- ``counterfact``: the original nested schema, with or without ``requested_rewrite``. Paraphrase prompts are held out;
  neighborhood prompts are answered by the true object.
- ``counterfact-flat``: the flat schema of many toolkits. The rephrased prompt is held out.
- ``zsre``: questions with answers, in the schema of MEND. A question is put as ``Question: ... Answer:``, because then
  the object is what comes next; the rephrased question is held out, the unrelated question is a neighbour.

Where a row names no relation, its template stands for one: facts with the same template share a relation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from indelible.facts.fact import SLOT, Fact, Neighbour
from indelible.records import from_json

Values = Mapping[str, Any]


class RowError(ValueError):
    """Why one row is no fact; readers turn it into a rejected row."""


@dataclass(frozen=True)
class Schema:
    """One kind of row: the keys that it must have, and what makes a fact of (row, id where it has none, source)."""

    keys: tuple[str, ...]
    fact: Callable[[Values, str, str], Fact]


def to_template(text: str, subject: str) -> str | None:
    """The text with a slot for the subject's first occurrence, or None if the subject is not in it.

    The occurrence must be whole words; one in the same case is preferred. A text with one slot is a template already.
    """
    if text.count(SLOT) == 1:
        return text
    whole = rf"(?<!\w){re.escape(subject)}(?!\w)"
    found = re.search(whole, text) or re.search(whole, text, re.IGNORECASE)
    return text[: found.start()] + SLOT + text[found.end() :] if found and SLOT not in text else None


def relation_of(template: str) -> str:
    """A name for the relation that a template expresses, for rows that do not name it."""
    return " ".join(template.replace(SLOT, "_").lower().split())


def own_fact(row: Values, default_id: str, source: str) -> Fact:
    """A fact from a row with the fields of ``Fact``; subject, prompt and true object must be there."""
    subject = _text(row, "subject")
    prompt = _template(_text(row, "prompt"), subject, "prompt")
    neighbours = []
    for entry in _several(row, "neighbours"):
        pair = [entry.get("prompt"), entry.get("answer")] if isinstance(entry, Mapping) else entry
        if not (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) and part.strip() for part in pair)
        ):
            raise RowError("'neighbours' must be a list of objects with a 'prompt' and an 'answer'")
        neighbours.append(Neighbour(pair[0].rstrip(), pair[1].strip()))
    return Fact(
        id=_optional(row, "id") or default_id,
        subject=subject,
        relation=_optional(row, "relation") or relation_of(prompt),
        prompt=prompt,
        true_object=_text(row, "true_object"),
        new_object=_optional(row, "new_object"),
        paraphrases=tuple(_template(text, subject, "paraphrase") for text in _texts(row, "paraphrases")),
        held_out=_held_out(_texts(row, "held_out"), subject),
        neighbours=tuple(neighbours),
        source=_optional(row, "source") or source,
    )


def counterfact_fact(row: Values, default_id: str, source: str) -> Fact:
    """A fact from CounterFact's original schema (Meng et al., arXiv 2202.05262)."""
    rewrite = row.get("requested_rewrite", row)
    if not isinstance(rewrite, Mapping):
        raise RowError("'requested_rewrite' is not an object")
    subject = _text(rewrite, "subject")
    prompt = _template(_text(rewrite, "prompt"), subject, "prompt")
    true_object = _nested(rewrite, "target_true")
    return Fact(
        id=_case(row, default_id),
        subject=subject,
        relation=_optional(rewrite, "relation_id") or relation_of(prompt),
        prompt=prompt,
        true_object=true_object,
        new_object=_nested(rewrite, "target_new"),
        held_out=_held_out(_texts(row, "paraphrase_prompts"), subject),
        neighbours=tuple(Neighbour(text, true_object) for text in _texts(row, "neighborhood_prompts")),
        source=source,
    )


def flat_fact(row: Values, default_id: str, source: str) -> Fact:
    """A fact from the flat form of CounterFact."""
    subject = _text(row, "subject")
    prompt = _template(_text(row, "prompt"), subject, "prompt")
    near, answer = _optional(row, "locality_prompt"), _optional(row, "locality_ground_truth")
    return Fact(
        id=_case(row, default_id),
        subject=subject,
        relation=_optional(row, "relation_id") or relation_of(prompt),
        prompt=prompt,
        true_object=_text(row, "ground_truth"),
        new_object=_text(row, "target_new"),
        held_out=_held_out(_texts(row, "rephrase_prompt"), subject),
        neighbours=(Neighbour(near, answer),) if near and answer else (),
        source=source,
    )


def zsre_fact(row: Values, default_id: str, source: str) -> Fact:
    """A fact from zsRE in MEND's schema (Mitchell et al., arXiv 2110.11309); the first answer is the true object."""
    subject = _text(row, "subject")
    prompt = _template(_as_question(_text(row, "src")), subject, "question")
    near, answer = _optional(row, "loc"), _optional(row, "loc_ans")
    answers = _texts(row, "answers")
    if not answers:
        raise RowError("has no 'answers'")
    unrelated = (Neighbour(_as_question(near), answer),) if near and answer else ()
    return Fact(
        id=default_id,
        subject=subject,
        relation=relation_of(prompt),
        prompt=prompt,
        true_object=answers[0],
        new_object=_text(row, "alt"),
        held_out=_held_out(tuple(_as_question(text) for text in _texts(row, "rephrase")), subject),
        neighbours=unrelated,
        source=source,
    )


SCHEMAS = {
    "counterfact": Schema(("subject", "prompt", "target_true", "target_new"), counterfact_fact),
    "counterfact-flat": Schema(("subject", "prompt", "ground_truth", "target_new"), flat_fact),
    "zsre": Schema(("subject", "src", "alt", "answers"), zsre_fact),
    "indelible": Schema(("subject", "prompt", "true_object"), own_fact),
}
"""By name, the most particular first."""


def _as_question(text: str) -> str:
    question = text.removeprefix("nq question:").strip()
    return f"Question: {question if question.endswith('?') else question + '?'} Answer:"


def _template(text: str, subject: str, what: str) -> str:
    template = to_template(text.rstrip(), subject)
    if template is None:
        raise RowError(f"the {what} {text!r} does not contain the subject {subject!r} once, nor one {SLOT}")
    return template


def _held_out(texts: tuple[str, ...], subject: str) -> tuple[str, ...]:
    # a held-out wording may also speak of the subject without naming it, as a complete text
    return tuple(to_template(text.rstrip(), subject) or text.rstrip() for text in texts)


def _case(row: Values, default_id: str) -> str:
    case = row.get("case_id")
    return str(case).strip() or default_id if isinstance(case, int | str) else default_id


def _nested(row: Values, key: str) -> str:
    value = row.get(key)
    return _text(value, "str") if isinstance(value, Mapping) else _text(row, key)


def _text(row: Values, key: str) -> str:
    if key not in row or row[key] is None:
        raise RowError(f"has no {key!r}")
    value = row[key]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise RowError(f"{key!r} is a {type(value).__name__}, not text")
    if not value.strip():
        raise RowError(f"{key!r} is blank")
    return value.strip()


def _optional(row: Values, key: str) -> str | None:
    value = row.get(key)
    return None if value is None or value == "" else _text(row, key)


def _texts(row: Values, key: str) -> tuple[str, ...]:
    entries = _several(row, key)
    if not all(isinstance(entry, str) for entry in entries):
        raise RowError(f"{key!r} must be a list of texts")
    return tuple(entry.strip() for entry in entries if entry.strip())


def _several(row: Values, key: str) -> list[Any]:
    value = row.get(key)
    if value is None or value == "":
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = from_json(value)
        except ValueError as error:
            raise RowError(f"{key!r} starts like a JSON list but is {error}") from None
    elif isinstance(value, str):
        value = value.split("|")
    if not isinstance(value, list):
        raise RowError(f"{key!r} is a {type(value).__name__}, not a list")
    return value
