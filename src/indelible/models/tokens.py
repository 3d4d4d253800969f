"""Prompts, answers and subjects as token ids, the same way everywhere.

Leading spaces, begin-of-sequence tokens and merges across the prompt's end have silently changed many published editing
results. Editors, tuning and the exam therefore take their tokens from here and nowhere else: an answer's tokens are
those that follow the prompt's when both are tokenised together, and a subject's last token is found in the very prompt
that the model will see.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from indelible.errors import FactsError, ModelError, SpellingError
from indelible.facts.fact import SLOT
from indelible.facts.joining import joined, joint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, with whatever the tokenizer puts before it (BOS) and nothing after it (EOS, SEP)."""
    ids: list[int] = list(tokenizer(text)["input_ids"])
    if ids and ids[-1] in tokenizer.all_special_ids:
        return ids[: len(ids) - _closing(tokenizer)]
    return ids


def check_vocabulary(model: Any, ids: Sequence[int]) -> None:
    """Refuse tokens that a model has no embedding of; a GPU would come to a halt at them.

    Raises:
        ModelError: with the first such token.
    """
    rows = getattr(model.get_input_embeddings(), "num_embeddings", math.inf)
    if (beyond := next((token for token in ids if token >= rows), None)) is not None:
        raise ModelError(
            f"The tokenizer writes token {beyond}, and the model's vocabulary has {rows}.",
            "Give the model's own tokenizer, or resize its embeddings.",
        )


def _closing(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens it puts behind every text."""
    closed, bare = (list(tokenizer("x", add_special_tokens=special)["input_ids"]) for special in (True, False))
    places = range(len(closed) - len(bare) + 1)
    return next((len(places) - 1 - place for place in places if closed[place : place + len(bare)] == bare), 0)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text that is to go on.

    White space at its end is left to the answer where it belongs to a token with it, as most tokenizers have it: of
    what is read, no token would be another if a letter or a digit followed.

    Raises:
        FactsError: if the prompt has no tokens.
    """
    ids = encode_text(tokenizer, text)
    if text[-1:].isspace():
        letter, digit = (encode_text(tokenizer, text + following) for following in "x5")
        ids = list(letter[: common_start(letter, digit)])
    if not ids:
        raise FactsError(f"The prompt {text!r} has no tokens.", "Give a prompt with at least one word.")
    return ids


def encode_target(tokenizer: PreTrainedTokenizerBase, prompt: str, target: str) -> list[int]:
    """Token ids of an answer as they follow ``encode_prompt(prompt)``, with what separates the two (facts.joining).

    Raises:
        FactsError: if the answer has no tokens.
    """
    prompt_ids = encode_prompt(tokenizer, prompt)
    ids = encode_text(tokenizer, joined(prompt, target))
    if ids[: len(prompt_ids)] == prompt_ids:
        ids = ids[len(prompt_ids) :]
    else:  # a token spans the border: the answer is spelled by itself, behind the prompt that is asked
        ids = _spelled(tokenizer, joint(prompt, target) + target.strip())
    if not target.strip() or not ids:
        raise FactsError(f"The object {target!r} has no tokens.", "Give an object with at least one letter.")
    return ids


def encode_object(tokenizer: PreTrainedTokenizerBase, prompt: str, name: str) -> list[int]:
    """Token ids of an answer whose probability tells something of it: see ``encode_target``.

    Raises:
        FactsError: if it has no tokens.
        SpellingError: if some of them stand for what the tokenizer does not know.
    """
    ids = encode_target(tokenizer, prompt, name)
    _check_spelling(tokenizer, ids, f"object {name!r}")
    return ids


def _spelled(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The text's own tokens, without the space that some tokenizers put before a text."""
    for before in "\nx5(":
        lead, both = (list(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (before, before + text))
        if both[: len(lead)] == lead and len(both) > len(lead):
            return both[len(lead) :]
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def subject_tokens(tokenizer: PreTrainedTokenizerBase, template: str, subject: str) -> tuple[int, int]:
    """Where the subject's first and last tokens stand in ``encode_prompt(template with the subject in its slot)``.

    Causal models gather what they know of a subject at the last one (ROME, Meng et al. 2022, section 2). A token that
    holds the subject's first letter counts as its first. Raises FactsError if there is no slot or the subject no token,
    SpellingError if its last one stands for what the tokenizer does not know.
    """
    if SLOT not in template:
        raise FactsError(f"The wording {template!r} has no slot for its subject.", f"Write {SLOT} where it belongs.")
    before = template[: template.index(SLOT)]
    end = len(before) + len(subject)
    text = template.replace(SLOT, subject)
    ids = encode_prompt(tokenizer, text)
    if tokenizer.is_fast:
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"][: len(ids)]
        covering = [position for position, (start, stop) in enumerate(offsets) if start < end and stop > len(before)]
    else:
        # The subject ends where the tokens of the text cut after it end, and begins after those of the text before it.
        last = len(encode_prompt(tokenizer, text[:end])) - 1
        first = len(encode_prompt(tokenizer, before.rstrip())) if before.strip() else 0
        covering = [min(first, last), last]
    if not subject.strip() or not covering:
        raise FactsError(f"The subject {subject!r} has no token in {text!r}.", "Give a subject with a letter or digit.")
    _check_spelling(tokenizer, [ids[covering[-1]]], f"end of the subject {subject!r}")
    return covering[0], covering[-1]


def _check_spelling(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], what: str) -> None:
    """Refuse tokens that stand for whatever the tokenizer does not know, and for no text in particular.

    Some tokenizers name a token of another use as their unknown one; they come upon it where it is written alone.
    """
    if tokenizer.unk_token_id in ids and tokenizer.unk_token not in what:
        raise SpellingError(f"The {what} is not in the tokenizer's vocabulary.", "Give one that it can spell.")
