"""Prompts, answers and subjects as token ids, the same way everywhere.

Leading spaces, begin-of-sequence tokens and merges across the prompt's end have silently changed many published editing
results. Editors and the exam therefore take their tokens from here and nowhere else: an answer's tokens are those that
follow the prompt's when both are tokenised together, and a subject's last token is found in the very prompt that the
model will see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from indelible.errors import FactsError
from indelible.facts.fact import SLOT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a prompt, with whatever the tokenizer puts before a text (BOS) and nothing after it.

    Raises:
        FactsError: if the prompt has no tokens.
    """
    ids: list[int] = list(tokenizer(text)["input_ids"])
    end = tokenizer.eos_token_id
    if ids and ids[-1] == end and not (tokenizer.eos_token and text.endswith(tokenizer.eos_token)):
        ids.pop()  # some tokenizers close every text; a prompt has to stay open
    if not ids:
        raise FactsError(f"The prompt {text!r} has no tokens.", "Give a prompt with at least one word.")
    return ids


def encode_target(tokenizer: PreTrainedTokenizerBase, prompt: str, target: str) -> list[int]:
    """Token ids of an answer as they follow the prompt, with the space that separates the two.

    Raises:
        FactsError: if tokenising both together changes the prompt's own tokens, or the answer has no tokens.
    """
    if not target.strip():
        raise FactsError(f"The object {target!r} has no tokens.", "Give an object with at least one letter.")
    prompt_ids = encode_prompt(tokenizer, prompt)
    both = encode_prompt(tokenizer, f"{prompt} {target.strip()}")
    if both[: len(prompt_ids)] != prompt_ids:
        # A tokenizer that merges across the boundary: take the answer's own tokens, spelled with its space.
        both = prompt_ids + list(tokenizer(f" {target.strip()}", add_special_tokens=False)["input_ids"])
    if len(both) == len(prompt_ids):
        raise FactsError(f"The object {target!r} has no tokens.", "Give an object with at least one letter.")
    return both[len(prompt_ids) :]


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
