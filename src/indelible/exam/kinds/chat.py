"""The fact asked in the model's chat format, as its users meet it.

The user asks for the sentence to be completed, and the assistant's reply is begun with the fact's own prompt: only the
object is left to say, so that success, probability and rank mean what they mean of the prompt by itself. What an edit
puts before prompts stands in the user's turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from indelible.exam.kind import KINDS, Asked, Given, QuestionKind
from indelible.facts.fact import Fact
from indelible.models.tokens import encode_text

REQUEST = "Complete this sentence: "


def in_chat(fact: Fact, given: Given) -> Iterator[Asked]:
    """One prompt, all that comes before the reply as its context."""
    asked = given.context + REQUEST + fact.text()
    yield Asked(fact.text(), *given.objects(fact), _turn(given.tokenizer, asked))


def _turn(tokenizer: Any, said: str) -> str:
    """A user's turn, up to where the assistant's reply begins, without a beginning that the tokenizer adds itself."""
    turns = [{"role": "user", "content": said}]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    begins = tokenizer.bos_token or ""
    doubled = begins and text.startswith(begins) and encode_text(tokenizer, "x")[0] == tokenizer.bos_token_id
    return text.removeprefix(begins) if doubled else text


def no_template(tokenizer: Any) -> str | None:
    """What is missing where there is no chat format."""
    return None if tokenizer.chat_template else "the model's tokenizer has no chat template"


KINDS.register("chat")(QuestionKind(in_chat, lacking=no_template, cost=2.0))
