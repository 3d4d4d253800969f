"""A prompt and its answer as token ids, in the chat format that a model was made for, or as plain text."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from indelible.models.tokens import encode_prompt, encode_target

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


SHORTEST_ANSWER = 4
"""An answer that is cut to fewer tokens than this teaches nothing."""


def plain_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Token ids of a prompt and of the answer that follows it as plain text, closed by the end of text."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return encode_prompt(tokenizer, prompt), [*encode_target(tokenizer, prompt, answer), *end]


def chat_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Token ids of a prompt and of the answer that follows it, closed as the model closes an answer.

    With a chat template the prompt is the user's turn and what opens the assistant's; the answer ends with whatever the
    template closes it with. Where the prompt's rendering is no beginning of the whole, the answer begins where the two
    part (so trl has it too). Without a template the two are plain text.
    """
    if tokenizer.chat_template is None:
        return plain_ids(tokenizer, prompt, answer)
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    given = _rendered(tokenizer, turns[:1], opened=True)
    both = _rendered(tokenizer, turns, opened=False)
    common = len(list(takewhile(lambda ids: ids[0] == ids[1], zip(given, both, strict=False))))
    return both[:common], both[common:]


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, opened: bool) -> list[int]:
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=opened)
    ids: list[int] = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return ids
