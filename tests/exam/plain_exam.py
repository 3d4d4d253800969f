"""Tiny models with all kinds of caches, questions for them, and the exam as a plain loop: one prompt, no cache."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model

from indelible.exam.criterion import succeeds
from indelible.exam.exam import Answer
from indelible.exam.questions import Question
from indelible.models.tokens import encode_prompt, encode_target
from tiny_families import build_family, enliven
from tiny_models import FAMILIES, build_model
from tiny_readings import FURTHER, SLOWER

# Tuned prompts, which a cache loses or cannot take.
PROMPTS: dict[str, Any] = {
    "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "p-tuning": PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=16),
}
# With ALiBi, offset positions and partial rotary among them.
TABLED = ("bloom", "opt", "gptj")
END = 0


def build(family: str, vocabulary: int) -> Any:
    """A tiny model whose next-token distributions are far from uniform, so that answers differ and some lines end."""
    if family in SLOWER:
        return enliven(build_family(family, vocabulary, settings=SLOWER[family][1]))
    if family in PROMPTS:
        tuned = get_peft_model(enliven(build_model("llama", vocabulary)), PROMPTS[family]).eval()
        for parameter in tuned.prompt_encoder.parameters():
            parameter.data.normal_(std=2.0, generator=torch.Generator().manual_seed(0))
        return tuned
    if family in FAMILIES:
        model = build_model(family, vocabulary)
    else:
        model = build_family(family, vocabulary, settings=FURTHER.get(family))
    model.get_input_embeddings().weight.data.mul_(20)
    model.get_output_embeddings().weight.data.mul_(20 if not model.config.tie_word_embeddings else 1)
    return model


def reference(model: Any, tokenizer: Any, question: Question) -> Answer:
    """One question the slow and plain way."""
    prompt = encode_prompt(tokenizer, question.prompt)

    def after_prompt(tokens: list[int]) -> torch.Tensor:
        row = [*prompt, *tokens]
        with torch.no_grad():  # tuned prompts have logits of their own, in front
            logits = model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -len(row) :].double()
        return logits[len(prompt) - 1 :].log_softmax(-1)

    def score(answer: str) -> tuple[list[int], float, torch.Tensor]:
        tokens = encode_target(tokenizer, question.prompt, answer)
        log_probs = after_prompt(tokens)
        return tokens, sum(log_probs[i, token].item() for i, token in enumerate(tokens)), log_probs[0]

    target, log_prob, next_v = score(question.target)
    rival, rival_log_prob, _ = score(question.rival) if question.rival else ([], math.nan, next_v)
    sequence: list[int] = []
    while len(sequence) < max(4, len(target) + 2, len(rival) + 2) and END not in sequence:
        sequence.append(int(after_prompt(sequence)[-1].argmax()))
    text = tokenizer.decode(sequence[: sequence.index(END)] if END in sequence else sequence)
    lines = text[len(text) - len(text.lstrip()) :].split("\n")
    generated = text[: len(text) - len(text.lstrip())] + lines[0]
    rank = int((next_v > next_v[target[0]]).sum()) + 1
    return Answer(
        question,
        generated,
        succeeds(generated, question.target),
        int(next_v.argmax()) == target[0],
        log_prob,
        rival_log_prob,
        rank,
    )


def make_questions(model: Any, tokenizer: Any, count: int = 14) -> list[Question]:
    """Prompts of many lengths, some twice; a third of the targets are what the model will write."""
    generator = random.Random(0)
    words = ["France", "Norway", "Peru", "the", "capital", "of", "is", "a", "city", "in", "people", "speak", "gold"]
    objects = ["Paris", "Oslo", "the krone", "Portuguese and Arabic", "Au", "42", "a very long answer in Spain"]
    questions: list[Question] = []
    for index in range(count):
        prompt = " ".join(generator.choices(words, k=generator.randint(1, 8)))
        if index % 6 == 5:
            prompt = questions[-1].prompt
        target = generator.choice(objects)
        rival = generator.choice([*objects, None])
        question = Question(f"f{index}", "edited", "prompt", 0, prompt, target, rival, "s", "r")
        if index % 3 == 0:
            written = reference(model, tokenizer, question).generated.strip()
            if any(character.isalpha() for character in written):
                question = dataclasses.replace(question, target=written.split()[0])
        questions.append(question)
    return questions


def assert_same(one: Answer, other: Answer) -> None:
    assert one.question == other.question
    assert one.generated == other.generated
    assert (one.success, one.first_token, one.rank) == (other.success, other.first_token, other.rank)
    assert one.log_prob == pytest.approx(other.log_prob, abs=2e-4)
    assert one.rival_log_prob == pytest.approx(other.rival_log_prob, abs=2e-4, nan_ok=True)
