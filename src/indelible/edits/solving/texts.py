"""The texts in which a fact is edited, as tokens: its wordings, the contexts put before them, and its target.

A key or value read from one sentence alone fits that sentence alone. Following ROME, wordings are also seen behind
short texts that the model itself writes, so that what is edited is the subject and not its place in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.errors import EditError
from indelible.facts.fact import SLOT, Fact
from indelible.facts.folding import in_normal_form
from indelible.facts.wordings import editing_wordings
from indelible.models.tokens import encode_object, encode_prompt, subject_tokens
from indelible.models.trace import evaluating

_OPENINGS = ("The", "Therefore", "Because", "I", "You")
_LIKELIEST = 5  # tokens, of which published code draws the next

Written = Literal["rome", "memit"]
"""Contexts of published code: ROME's open with the end of a text, ten have 5 tokens in all and ten have 10; MEMIT's
(AlphaEdit's, PMET's and EMMET's too) have 10 tokens, behind each of the openings. Both draw among the 5 likeliest."""
After = Literal["is a", "subject"]
"""Where the word after what a subject is stays as it was: behind "<subject> is a", or, in published code, right behind
the subject in it."""


@dataclass(frozen=True)
class Row:
    """One text for the model, with the position of its subject's last token, and how many tokens at its end are target.

    A bare prompt has a target of 0 tokens.
    """

    tokens: tuple[int, ...]
    subject: int
    target: int


@dataclass(frozen=True)
class FactRows:
    """One fact's texts.

    Attributes:
        wordings: per wording, the bare prompt first and then the prompt behind each context; without target.
        rewrites: prompts with target: every wording bare, and the fact's own prompt behind each context.
        essence: "<subject> is a", or of that up to the subject, where the model's next word should stay what it was
            (ROME's KL term).
    """

    wordings: tuple[tuple[Row, ...], ...]
    rewrites: tuple[Row, ...]
    essence: Row


def rows_for(
    tokenizer: PreTrainedTokenizerBase,
    fact: Fact,
    paraphrases: int,
    contexts: Sequence[str],
    *,
    sink: bool = False,
    kl_after: After = "is a",
) -> FactRows:
    """Tokenise a fact for editing, with so many further wordings and with texts to put before a wording.

    With ``sink``, a first token has a key that tells nothing of it (see ``keys.begins_with_a_sink``): a wording that
    begins with a subject of one token is then read behind the contexts only.

    Raises:
        EditError: if the fact has no new object or not enough wordings, or contexts are wanting.
        FactsError: if a wording lacks its subject.
    """
    if fact.new_object is None:
        raise EditError(f"The fact {fact.id!r} has no new object.", "Give new_object for every fact to be edited.")
    templates = [fact.prompt, *editing_wordings(fact, paraphrases)]
    wordings: list[tuple[Row, ...]] = []
    rewrites: list[Row] = []
    for number, template in enumerate(templates):
        behind = _readable(tokenizer, fact, template, contexts, sink)
        wordings.append(tuple(_row(tokenizer, fact, text, None) for text in behind))
        seen = behind if number == 0 else behind[:1]
        rewrites.extend(_row(tokenizer, fact, text, fact.new_object) for text in seen)
    essence = _row(tokenizer, fact, _readable(tokenizer, fact, f"{SLOT} is a", contexts, sink)[0], None)
    if kl_after == "subject":
        essence = replace(essence, tokens=essence.tokens[: essence.subject + 1])
    return FactRows(tuple(wordings), tuple(rewrites), essence)


def _readable(
    tokenizer: PreTrainedTokenizerBase, fact: Fact, template: str, contexts: Sequence[str], sink: bool
) -> list[str]:
    """The wording by itself, where its subject can be read there, and behind each context."""
    behind = [f"{context}. {template}" for context in contexts]
    if not sink or _row(tokenizer, fact, template, None).subject > 0:
        return [template, *behind]
    if not behind:
        raise EditError(
            f"The subject {fact.subject!r} is the first token of {fact.text(template)!r}, where this model tells no"
            " words apart (an attention sink).",
            "Give contexts of 1 or more, so that it is read behind other words.",
        )
    return behind


def bare_row(tokenizer: PreTrainedTokenizerBase, fact: Fact) -> Row:
    """The fact's own prompt, without context or target."""
    return _row(tokenizer, fact, fact.prompt, None)


def _row(tokenizer: PreTrainedTokenizerBase, fact: Fact, template: str, target: str | None) -> Row:
    prompt = fact.text(template)
    answer = encode_object(tokenizer, prompt, target) if target is not None else []
    _, subject = subject_tokens(tokenizer, template, fact.subject)
    return Row(tuple(encode_prompt(tokenizer, prompt) + answer), subject, len(answer))


def sample_contexts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, written: int | Written, *, seed: int = 0
) -> list[str]:
    """Short texts that the model writes itself, to stand before a wording: so many of ten tokens behind their openings,
    drawn from the whole vocabulary, or those of published code.

    torch's random state is not touched. Raises EditError if the model's probabilities are none (NaN).
    """
    generator = torch.Generator().manual_seed(seed)
    contexts = []
    with evaluating(model), torch.inference_mode():
        for tokens, length in _openings(tokenizer, written):
            while len(tokens) < length:
                logits = model(torch.tensor([tokens], device=model.device), use_cache=False).logits[0, -1]
                chances = torch.softmax(logits.float().cpu(), dim=-1)
                if not bool(torch.isfinite(chances).all()):
                    raise EditError("The model gives words no probabilities (NaN).", "Give a model in working order.")
                if not isinstance(written, int):
                    chances *= chances >= chances.topk(min(_LIKELIEST, len(chances))).values[-1]
                tokens.append(int(torch.multinomial(chances, 1, generator=generator)))
            text = str(tokenizer.decode(tokens, skip_special_tokens=True)).replace("{", " ").replace("}", " ")
            # A slot in the text would be taken for the subject's, and line breaks end the sentence for many models.
            if isinstance(written, int):
                contexts.append(" ".join(text.split()).rstrip(". "))
            else:
                contexts.append(in_normal_form("NFKD", text).replace("\n\n", " "))
    return contexts


def _openings(tokenizer: PreTrainedTokenizerBase, written: int | Written) -> list[tuple[list[int], int]]:
    """What each context begins with, in tokens, and how many tokens it has with them."""
    if written == "rome":
        end = tokenizer.eos_token_id
        start = encode_prompt(tokenizer, _OPENINGS[0]) if end is None else [end]
        return [(list(start), length) for length in (5, 10) for _ in range(10)]
    count = len(_OPENINGS) if written == "memit" else written
    openings = [encode_prompt(tokenizer, _OPENINGS[number % len(_OPENINGS)]) for number in range(count)]
    return [(tokens, 10 if written == "memit" else len(tokens) + 10) for tokens in openings]
