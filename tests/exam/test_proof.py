"""What an exam proves of its way of reading a model, whatever is asked; and what no way could read rightly."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from plain_exam import assert_same, build, make_questions, reference
from transformers import LlamaForCausalLM

from indelible.errors import ConfigError, FactsError, ModelError
from indelible.exam import tree
from indelible.exam.exam import known_facts, take_exam
from indelible.exam.questions import Question
from indelible.facts.fact import Fact
from indelible.models.tokens import encode_prompt
from tiny_families import SHAPE, build_family, enliven
from tiny_models import Make, Tokenizer


def silenced(model: Any, tokenizer: Any, questions: list[Question]) -> None:
    """Whatever the model would first write to these questions is an end token."""
    model.generation_config.eos_token_id = [
        int(model(torch.tensor([encode_prompt(tokenizer, one.prompt)]), use_cache=False).logits[0, -1].argmax())
        for one in questions
    ]


@pytest.mark.filterwarnings("ignore:.*does not answer as in plain passes:UserWarning")
@pytest.mark.parametrize("family", ["bamba", "jamba", "minimax"])
def test_a_way_is_proved_where_the_first_batch_asks_for_single_tokens(family: str, tiny_tokenizer: Tokenizer) -> None:
    """Such a batch comes nowhere near the cache, on which the others are then read."""
    model = build(family, len(tiny_tokenizer))
    end = "is, I think, in the north of"
    single = [Question("f", "edited", "prompt", 0, f"The {one} {end}", "a", None, one, "r") for one in ("fox", "dog")]
    silenced(model, tiny_tokenizer, single)
    several = [
        dataclasses.replace(single[0], prompt=prompt, target="the quick brown fox")
        for prompt in ("Oslo is", "The city is in Peru")
    ]
    for question, answer in zip(several, take_exam(model, tiny_tokenizer, [*single, *several])[2:], strict=True):
        assert answer.log_prob == pytest.approx(reference(model, tiny_tokenizer, question).log_prob, abs=2e-4)


class Forgetful(LlamaForCausalLM):
    """Loses its cache when that has grown beyond 24 tokens."""

    def forward(self, *args: Any, past_key_values: Any = None, **options: Any) -> Any:
        long = past_key_values is not None and past_key_values.get_seq_length() > 24
        return super().forward(*args, past_key_values=None if long else past_key_values, **options)


def test_the_longest_prompt_is_proved_though_it_stands_alone(tiny_tokenizer: Tokenizer) -> None:
    model = Forgetful(build("llama", len(tiny_tokenizer)).config).eval()
    enliven(model)
    questions = make_questions(model, tiny_tokenizer, 6)
    questions += [dataclasses.replace(questions[0], prompt=f"{one} is in") for one in ("a", "b")]  # of one length
    questions.append(dataclasses.replace(questions[0], prompt="The capital of France is Paris and " * 3 + "is"))
    with pytest.warns(UserWarning, match="Forgetful does not answer as in plain passes .* without a cache,"):
        answers = take_exam(model, tiny_tokenizer, questions)
    assert_same(answers[-1], reference(model, tiny_tokenizer, questions[-1]))


class OneForAll(LlamaForCausalLM):
    """Gives every row the positions of the first."""

    def forward(self, *args: Any, position_ids: Any = None, **options: Any) -> Any:
        alike = None if position_ids is None else position_ids[:1].expand_as(position_ids)
        return super().forward(*args, position_ids=alike, **options)


def test_the_first_row_is_not_all_that_is_proved(tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "ROW_SLOTS", 1)
    monkeypatch.setattr(tree, "TEXTS_PER_ROW", 1)
    model = OneForAll(build("llama", len(tiny_tokenizer)).config).eval()
    enliven(model)
    (one,) = make_questions(model, tiny_tokenizer, 1)
    *others, last = sorted(("Oslo", "Rome is", "In Peru"), key=lambda text: encode_prompt(tiny_tokenizer, text))
    prompts = [*others, f"{last} and in the north of"]  # by length, too, the one of which something is proved
    questions = [dataclasses.replace(one, prompt=prompt) for prompt in prompts]
    for answer in take_exam(model, tiny_tokenizer, questions):
        assert_same(answer, reference(model, tiny_tokenizer, answer.question))


@pytest.mark.parametrize("ruled_out", [-math.inf, torch.finfo(torch.float32).min])
def test_words_that_are_ruled_out_spoil_no_proof(ruled_out: float, tiny_tokenizer: Tokenizer) -> None:
    model = build("bamba", len(tiny_tokenizer))
    model.lm_head.register_forward_hook(lambda module, given, logits: logits.index_fill(-1, never, ruled_out))
    never = torch.tensor([one for word in (" Zx", " Yq") for one in tiny_tokenizer(word)["input_ids"][-1:]])
    question = Question("f", "edited", "prompt", 0, "Oslo is in the north of", "Spain and Norway", "Zx", "Oslo", "r")
    with pytest.warns(UserWarning, match="explicit positions"):
        (answer,) = take_exam(model, tiny_tokenizer, [question])
    expected = reference(model, tiny_tokenizer, question)
    assert answer.log_prob == pytest.approx(expected.log_prob, abs=2e-4)
    assert answer.rival_log_prob == pytest.approx(expected.rival_log_prob, rel=1e-6)


def test_an_answer_does_not_cross_a_place_where_positions_are_counted_otherwise(tiny_tokenizer: Tokenizer) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope |= {"original_max_position_embeddings": 16, "factor": 8.0}
    settings = {**SHAPE, "rope_parameters": rope, "original_max_position_embeddings": 16, "pad_token_id": 0}
    model = enliven(build_family("phi3", len(tiny_tokenizer), settings=settings))
    before, across, beyond = (
        Question(str(n), "intrinsic", "prompt", 0, " a" * n, "b", None, "a", "r") for n in (6, 14, 20)
    )
    for question, answer in zip([before, beyond], take_exam(model, tiny_tokenizer, [before, beyond]), strict=True):
        assert answer.log_prob == pytest.approx(reference(model, tiny_tokenizer, question).log_prob, abs=2e-4)
    with pytest.raises(FactsError, match=r"'14' has a prompt of 14 tokens; .* beyond 16"):
        take_exam(model, tiny_tokenizer, [before, across])
    fact = Fact("f", "a", "r", " a" * 13 + " {}", "b")
    assert known_facts(model, tiny_tokenizer, [fact]) == []


def test_words_beyond_the_models_vocabulary_are_refused(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    model.resize_token_embeddings(300)
    question = Question("f", "edited", "prompt", 0, "Oslo is in", "Norway", "Peru", "Oslo", "country")
    with pytest.raises(ModelError, match=r"token 3\d\d, and the model's vocabulary has 300"):
        take_exam(model, tiny_tokenizer, [question])


def test_a_model_without_weights_is_refused(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    question = Question("f", "edited", "prompt", 0, "Oslo is in", "Norway", "Peru", "Oslo", "country")
    with pytest.raises(ModelError, match="has no weights"):
        take_exam(tiny_model("llama").to("meta"), tiny_tokenizer, [question])


def test_an_answer_of_several_lines_is_refused(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    """It could never be a success: what a model writes is judged to the end of its line."""
    question = Question("f", "edited", "prompt", 0, "Oslo is in", "Norway\nPeru", "Peru\n", "Oslo", "country")
    with pytest.raises(FactsError, match="'f' has an answer of several lines"):
        take_exam(tiny_model("llama"), tiny_tokenizer, [question])
    swapped = dataclasses.replace(question, target="Peru\n", rival="Norway\nPeru")
    assert take_exam(tiny_model("llama"), tiny_tokenizer, [swapped])[0].generated


@pytest.mark.parametrize("option", ["batch_size", "max_new_tokens"])
def test_numbers_below_one_are_refused(option: str, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    question = Question("f", "edited", "prompt", 0, "Oslo is in", "Norway", "Peru", "Oslo", "country")
    for given in (0, -1):
        with pytest.raises(ConfigError, match=f"{option} is {given}"):
            take_exam(tiny_model("llama"), tiny_tokenizer, [question], **{option: given})
