"""Prompts, answers and subjects as token ids, the same way everywhere.

Leading spaces, begin-of-sequence tokens and merges across the prompt's end have silently changed many published editing
results. Editors, tuning and the exam therefore take their tokens from here and nowhere else: an answer's tokens are
those that follow the prompt's when both are tokenised together, and a subject's last token is found in the very prompt
that the model will see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from indelible.errors import FactsError
from indelible.facts.fact import SLOT
from indelible.facts.joining import joined, joint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, with whatever the tokenizer puts before it (BOS) and nothing after it."""
    ids: list[int] = list(tokenizer(text)["input_ids"])
    if ids and ids[-1] == tokenizer.eos_token_id and not (tokenizer.eos_token and text.endswith(tokenizer.eos_token)):
        ids.pop()  # some tokenizers close every text; a prompt has to stay open
    return ids


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
        ids = list(letter[: _common(letter, digit)])
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


def _spelled(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The text's own tokens, without the space that some tokenizers put before a text."""
    for before in "\nx5(":
        lead, both = (list(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in (before, before + text))
        if both[: len(lead)] == lead and len(both) > len(lead):
            return both[len(lead) :]
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def subject_tokens(tokenizer: PreTrainedTokenizerBase, template: str, subject: str) -> tuple[int, int]:
    """Where the subject's first and last tokens stand in ``encode_prompt(template with the subject in its slot)``.

    Causal models gather what they know of a subject at the last one (ROME, Meng et al. 2022, section 2). A token that
    holds the subject's first letter counts as its first. Raises FactsError if there is no slot or the subject no token.
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
    return covering[0], covering[-1]
