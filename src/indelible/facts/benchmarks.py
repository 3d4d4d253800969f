"""Facts of published benchmarks: one function for each kind of row.

- ``counterfact``: the original nested schema, with or without ``requested_rewrite``. Paraphrase prompts are held out;
  neighborhood prompts are answered by the true object.
- ``counterfact-flat``: the flat schema of many toolkits. The rephrased prompt is held out.
- ``zsre``: questions with answers, in the schema of MEND. A question is put as ``Question: ... Answer:``, because then
  the object is what comes next; the rephrased question is held out, the unrelated question is a neighbour.
- ``knowedit``: WikiData-counterfact and ZsRE of KnowEdit. The rephrased prompt and those that call the subject by
  another name are held out, prompts of ``locality`` are neighbours. Of an answer's names the first one is asked.
- ``mquake``: each rewrite of a row is a fact, its question is held out; what they imply together is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from indelible.facts.fact import Fact, Neighbour
from indelible.facts.formats import (
    Row,
    RowError,
    Schema,
    as_held_out,
    as_question,
    as_template,
    list_at,
    names_at,
    optional_at,
    own_fact,
    relation_of,
    text_at,
    texts_at,
)


def counterfact_fact(row: Row, default_id: str, source: str) -> Fact:
    """A fact from CounterFact's original schema (Meng et al., arXiv 2202.05262)."""
    rewrite = row.get("requested_rewrite", row)
    if not isinstance(rewrite, Row):
        raise RowError("'requested_rewrite' is not an object")
    subject = text_at(rewrite, "subject")
    prompt = as_template(text_at(rewrite, "prompt"), subject, "prompt")
    true_object = _nested(rewrite, "target_true")
    return Fact(
        id=_case_id(row, default_id),
        subject=subject,
        relation=optional_at(rewrite, "relation_id") or relation_of(prompt),
        prompt=prompt,
        true_object=true_object,
        new_object=_nested(rewrite, "target_new"),
        held_out=as_held_out(texts_at(row, "paraphrase_prompts"), subject),
        neighbours=tuple(Neighbour(text, true_object) for text in texts_at(row, "neighborhood_prompts")),
        source=source,
    )


def flat_fact(row: Row, default_id: str, source: str) -> Fact:
    """A fact from the flat form of CounterFact."""
    subject = text_at(row, "subject")
    prompt = as_template(text_at(row, "prompt"), subject, "prompt")
    near, answer = _both(row, "locality_prompt", "locality_ground_truth")
    return Fact(
        id=_case_id(row, default_id),
        subject=subject,
        relation=optional_at(row, "relation_id") or relation_of(prompt),
        prompt=prompt,
        true_object=_first_name(row, "ground_truth"),
        new_object=_first_name(row, "target_new"),
        held_out=as_held_out(texts_at(row, "rephrase_prompt"), subject),
        neighbours=(Neighbour(near, answer),) if near and answer else (),
        source=source,
    )


def zsre_fact(row: Row, default_id: str, source: str) -> Fact:
    """A fact from zsRE in MEND's schema (Mitchell et al., arXiv 2110.11309); the first answer is the true object."""
    subject = text_at(row, "subject")
    prompt = as_template(as_question(text_at(row, "src")), subject, "question")
    near, answer = _both(row, "loc", "loc_ans")
    answers = texts_at(row, "answers")
    if not answers:
        raise RowError("has no 'answers'")
    if len(answers) > 1:
        row.left.add("answers after the first")
    unrelated = (Neighbour(as_question(near), answer),) if near and answer else ()
    return Fact(
        id=default_id,
        subject=subject,
        relation=relation_of(prompt),
        prompt=prompt,
        true_object=answers[0].strip(),
        new_object=text_at(row, "alt"),
        held_out=as_held_out(tuple(as_question(text) for text in texts_at(row, "rephrase")), subject),
        neighbours=unrelated,
        source=source,
    )


def knowedit_fact(row: Row, default_id: str, source: str) -> Fact:
    """A fact from KnowEdit (Zhang et al., arXiv 2401.01286); where it only adds knowledge there is no true object."""
    subject = text_at(row, "subject")
    prompt = as_template(_asked(text_at(row, "prompt")), subject, "prompt")
    if not row.get("ground_truth"):
        raise RowError("has no 'ground_truth': it adds a fact (as WikiData-recent does) in place of changing one")
    new = names_at(row, "target_new")
    held_out = [_asked(text) for text in texts_at(row, "rephrase_prompt")]
    for text, names in _asides(row, "portability", ("Subject_Aliasing",)):
        if {name.casefold() for name in names} & {name.casefold() for name in new}:
            held_out.append(text)
        else:
            row.left.add("portability.Subject_Aliasing with another answer")
    return Fact(
        id=_case_id(row, default_id),
        subject=subject,
        relation=relation_of(prompt),
        prompt=prompt,
        true_object=_first_name(row, "ground_truth"),
        new_object=_first_name(row, "target_new"),
        held_out=as_held_out(tuple(held_out), subject),
        neighbours=tuple(Neighbour(text, names[0]) for text, names in _asides(row, "locality")),
        source=source,
    )


def mquake_facts(row: Row, default_id: str, source: str) -> list[Fact]:
    """The facts that a row of MQuAKE (Zhong et al., arXiv 2305.14795) rewrites."""
    facts = []
    if not (rewrites := list_at(row, "requested_rewrite")):
        raise RowError("has no 'requested_rewrite'")
    for number, values in enumerate(rewrites, 1):
        if not isinstance(values, Mapping):
            raise RowError("'requested_rewrite' must be a list of objects")
        rewrite = Row(values, "requested_rewrite.", row)
        fact = counterfact_fact(rewrite, default_id, source)
        questions = [_asked(text) for text in texts_at(rewrite, "question")]
        name = f"{_case_id(row, default_id)}.{number}"
        facts.append(replace(fact, id=name, held_out=as_held_out(tuple(questions), fact.subject)))
    return facts


SCHEMAS: Mapping[str, Schema] = MappingProxyType(
    {
        "mquake": Schema(
            ("subject", "prompt", "target_true", "target_new", "questions"),
            mquake_facts,
            passed_over=(
                *("id", "answer", "answer_alias", "new_answer", "new_answer_alias", "single_hops", "new_single_hops"),
                *("orig", "question"),
            ),
        ),
        "counterfact": Schema(
            ("subject", "prompt", "target_true", "target_new"), counterfact_fact, passed_over=("id", "pararel_idx")
        ),
        "knowedit": Schema(("subject", "prompt", "target_new", "locality"), knowedit_fact, passed_over=("cond",)),
        "counterfact-flat": Schema(("subject", "prompt", "ground_truth", "target_new"), flat_fact),
        "zsre": Schema(("subject", "src", "alt", "answers"), zsre_fact, passed_over=("pred", "cond", "case_id")),
        "indelible": Schema(("subject", "prompt", "true_object"), own_fact, published=False),
    }
)
"""By name, the most particular first."""

NO_FACTS: Mapping[str, tuple[tuple[str, ...], str]] = MappingProxyType(
    {
        "RippleEdits": (("example_type", "edit"), "its rows name subject and objects by Wikidata's identifiers alone"),
        "WikiBio of KnowEdit": (
            ("concept", "text", "labels"),
            "its rows are passages to go on with, without an object",
        ),
    }
)
"""Benchmarks that are known by their keys and cannot be read, and why."""


def _nested(row: Row, key: str) -> str:
    value = row.get(key)
    return text_at(value, "str") if isinstance(value, Row) else text_at(row, key)


def _both(row: Row, prompt: str, answer: str) -> tuple[str | None, str | None]:
    """A prompt and its answer, of use together only."""
    found = optional_at(row, prompt), optional_at(row, answer)
    for name, text, other in zip((prompt, answer), found, (answer, prompt), strict=True):
        if text is not None and None in found:
            row.left.add(f"{name} without {other}")
    return found


def _first_name(row: Row, key: str) -> str:
    first, *others = names_at(row, key)
    if others:
        row.left.add(f"{key} after the first name")
    return first


def _case_id(row: Row, default_id: str) -> str:
    case = row.get("case_id")
    return str(case).strip() or default_id if isinstance(case, int | str) else default_id


def _asked(text: str) -> str:
    return as_question(text) if text.rstrip().endswith("?") else text


def _asides(row: Row, key: str, groups: tuple[str, ...] | None = None) -> Iterator[tuple[str, list[str]]]:
    """The prompts in some groups of an object, or in all, each with the names of its answer."""
    aside = row.get(key) or {}
    if not isinstance(aside, Mapping):
        raise RowError(f"{key!r} is a {type(aside).__name__}, not an object")
    for group in aside if groups is None else groups:
        entries = aside.get(group) or []
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise RowError(f"'{key}.{group}' is not a list of objects")
        for entry in entries:
            yield _asked(names_at(entry, "prompt")[0].rstrip()), names_at(entry, "ground_truth")
