"""Prompts, answers and subjects as tokens, under tokenizers that open, close or prefix every text in their own way."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from indelible.edits.solving.texts import rows_for
from indelible.errors import FactsError, SpellingError
from indelible.facts.fact import SLOT, Fact
from indelible.facts.joining import joined
from indelible.models.tokens import encode_object, encode_prompt, encode_target, encode_text, subject_tokens
from indelible.tuning.chat import chat_ids
from joints import JOINTS
from tiny_models import SENTENCES, build_tokenizer


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Spaces are part of words, every text is given one, and a BOS token comes first: Llama 2's way."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    joints = "".join("".join(parts) for parts in JOINTS.values())
    letters = sorted(set("".join(SENTENCES) + joints + "ZanzibarhouseÉ\u2581"))
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=letters, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def closing(start: bool) -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts the end-of-text token behind every text, and perhaps before it."""
    fast = build_tokenizer()
    single = "<|end|> $A <|end|>" if start else "$A <|end|>"
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("<|end|>", fast.eos_token_id)]
    )
    return fast


class Slow:
    """A tokenizer without offsets, as those written in Python are."""

    is_fast = False

    def __init__(self, fast: PreTrainedTokenizerFast) -> None:
        self._fast = fast

    def __call__(self, text: str, **options: Any) -> Any:
        assert "return_offsets_mapping" not in options
        return self._fast(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fast, name)


def separating(*behind: str) -> PreTrainedTokenizerFast:
    """Whole words, lower-case, and marks behind every text that are no end-of-text token: BERT's and XLNet's ways."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[UNK]", "[CLS]", "[SEP]", "[END]"], show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["[CLS]", "$A", *behind],
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", *behind)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", eos_token="[END]"
    )


TOKENIZERS = {
    "plain": build_tokenizer,
    "closing": lambda: closing(False),
    "bracketing": lambda: closing(True),
    "sentencepiece": sentencepiece_like,
}
CASES = [
    ("The capital of {} is", "France"),
    ("{} is in", "France"),
    ("{} is in", "The quick brown fox"),
    ("Who lives in {}", "Zanzibar house"),
    ("{}", "Peru"),
    ("{}'s capital is", "Norway"),
    ("In the north of {}, people speak", "Spain"),
]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize(("template", "subject"), CASES)
def test_the_subject_ends_where_it_has_just_been_read(kind: str, template: str, subject: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    ids = encode_prompt(tokenizer, template.replace("{}", subject))
    _, place = subject_tokens(tokenizer, template, subject)
    assert tokenizer.decode(ids[: place + 1], skip_special_tokens=True).endswith(subject)
    assert not tokenizer.decode(ids[:place], skip_special_tokens=True).endswith(subject)
    assert subject_tokens(Slow(tokenizer), template, subject)[1] == place  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_prompts_stay_open_and_keep_their_beginning(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    ids = encode_prompt(tokenizer, "The capital of France is")
    assert ids[-1] != tokenizer.eos_token_id
    begins = {"bracketing": tokenizer.bos_token_id, "sentencepiece": tokenizer.bos_token_id}
    assert (ids[0] == begins[kind]) if kind in begins else (ids[0] != tokenizer.bos_token_id)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "The capital of France is"


@pytest.mark.parametrize("behind", [("[SEP]",), ("[SEP]", "[CLS]"), ("[END]", "[SEP]"), ()])
def test_no_mark_that_closes_a_text_is_read_or_asked(behind: tuple[str, ...]) -> None:
    tokenizer = separating(*behind)
    prompt = "The capital of France is"
    for text in (prompt, f"{prompt}\n", f"{prompt} "):
        asked = encode_prompt(tokenizer, text)
        assert tokenizer.convert_ids_to_tokens(asked) == ["[CLS]", "the", "capital", "of", "france", "is"]
        assert tokenizer.convert_ids_to_tokens(encode_target(tokenizer, text, "Paris")) == ["paris"]
    written = encode_text(tokenizer, f"{prompt} [SEP]")  # a mark that is written stays
    assert tokenizer.convert_ids_to_tokens(written)[-2:] == ["is", "[SEP]"]
    assert subject_tokens(tokenizer, "The capital of {}", "France") == (4, 4)


def test_names_that_are_not_in_the_vocabulary_are_refused() -> None:
    """All of them would be one token, and an edit of one an edit of all."""
    tokenizer = separating("[SEP]")
    prompt = "The capital of France is"
    with pytest.raises(SpellingError, match="object 'Ђ' is not in the tokenizer's vocabulary"):
        encode_object(tokenizer, prompt, "Ђ")
    assert encode_target(tokenizer, prompt, "Ђ") == [tokenizer.unk_token_id]  # a text to train on may hold any word
    with pytest.raises(SpellingError, match="end of the subject 'France Ђ'"):
        subject_tokens(tokenizer, "The capital of {} is", "France Ђ")
    assert encode_object(tokenizer, prompt, "[UNK]") == [tokenizer.unk_token_id]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("target", ["Oslo", " Oslo", "Oslo ", "the quick brown fox", "42", "É"])
def test_answers_follow_their_prompt_with_one_space(kind: str, target: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    prompt = "The capital of Norway is"
    answer = encode_target(tokenizer, prompt, target)
    assert answer and tokenizer.bos_token_id not in answer and tokenizer.eos_token_id not in answer
    whole = encode_prompt(tokenizer, prompt) + answer
    assert whole == encode_prompt(tokenizer, f"{prompt} {target.strip()}")
    assert tokenizer.decode(whole, skip_special_tokens=True) == f"{prompt} {target.strip()}"


def test_answers_are_spelled_alone_where_they_would_change_the_prompt() -> None:
    tokenizer = Tokenizer(
        models.BPE(vocab={"a": 0, " ": 1, "b": 2, " b": 3, "a b": 4}, merges=[(" ", "b"), ("a", " b")])
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert encode_prompt(fast, "a b") == [4]
    assert encode_target(fast, "a", "b") == [3]


def test_a_text_that_ends_with_the_end_token_keeps_it(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    assert encode_prompt(tiny_tokenizer, "Paris<|end|>")[-1] == tiny_tokenizer.eos_token_id


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_what_has_no_tokens_is_refused(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    if kind in ("plain", "closing"):
        with pytest.raises(FactsError, match="prompt '' has no tokens"):
            encode_prompt(tokenizer, "")
    for blank in ("", "  "):
        with pytest.raises(FactsError, match="has no tokens"):
            encode_target(tokenizer, "The capital is", blank)
        with pytest.raises(FactsError, match="has no token in"):
            subject_tokens(tokenizer, "The capital of {} is", blank)
    with pytest.raises(FactsError, match=r"'The capital' has no slot.*Write \{\}"):
        subject_tokens(tokenizer, "The capital", "France")


def spanning() -> PreTrainedTokenizerFast:
    """Byte-level BPE, in the way of Llama 3 and Qwen: a mark goes with the letters behind it; in many scripts."""
    tokenizer = Tokenizer(models.BPE())
    split = Regex(r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(split, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [*SENTENCES, *("".join(parts) for parts in JOINTS.values() for _ in range(9))]
    tokenizer.train_from_iterator([text for text in texts for _ in range(3)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


@pytest.mark.parametrize("kind", [*TOKENIZERS, "spanning"])
@pytest.mark.parametrize(("prompt", "between", "answer"), JOINTS.values(), ids=JOINTS)
def test_an_answer_follows_as_it_is_written(kind: str, prompt: str, between: str, answer: str) -> None:
    assert joined(prompt, f" {answer} ") == prompt + between + answer
    tokenizer = (TOKENIZERS | {"spanning": spanning})[kind]()
    asked, wanted = encode_prompt(tokenizer, prompt), encode_target(tokenizer, prompt, answer)
    whole = encode_text(tokenizer, prompt + between + answer)
    if kind != "sentencepiece":  # which lacks most of these letters
        assert tokenizer.decode(asked + wanted, skip_special_tokens=True) == prompt + between + answer
        # Of the prompt's own letters nothing is left to the answer.
        assert tokenizer.decode(asked, skip_special_tokens=True).startswith(prompt.rstrip())
    if whole[: len(asked)] == asked:  # else a token spans the border
        assert asked + wanted == whole


@pytest.mark.parametrize(("prompt", "between", "answer"), JOINTS.values(), ids=JOINTS)
def test_edit_exam_and_tuning_read_the_same(prompt: str, between: str, answer: str) -> None:
    tokenizer = spanning()
    asked, wanted = encode_prompt(tokenizer, prompt), encode_target(tokenizer, prompt, answer)
    subject = next(word for word in re.split(r"\W+", prompt) if word)
    fact = Fact("f", subject, "r", prompt.replace(subject, SLOT, 1), "x", answer)
    edited = rows_for(tokenizer, fact, 0, ()).rewrites[0]
    assert (edited.tokens, edited.target) == ((*asked, *wanted), len(wanted))
    assert subject in tokenizer.decode(asked[: edited.subject + 1])
    assert chat_ids(tokenizer, prompt, answer) == (asked, [*wanted, tokenizer.eos_token_id])
