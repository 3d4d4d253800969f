"""Models of every kind that were taught a few sentences: the exam finds what they know, and ``generate`` says it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from indelible.exam.exam import known_facts, take_exam
from indelible.exam.questions import questions_for
from indelible.exam.sitting import LABEL_TOKENS, Sitting, Transcript
from indelible.facts.fact import Fact
from indelible.models.tokens import encode_prompt, encode_text
from tiny_families import build_family
from tiny_models import Tokenizer, build_model
from tiny_readings import FURTHER, SLOWER

FACTS = [
    Fact("n", "Norway", "capital", "The capital of {} is", "Oslo"),
    Fact("p", "Peru", "capital", "The capital of {} is", "Lima"),
    Fact("g", "gold", "symbol", "The chemical symbol of {} is", "Au"),
    Fact("b", "Brazil", "language", "In {} people speak", "Portuguese"),
]
KINDS = {
    "dense": ("llama", None),
    "sliding window": ("mistral", FURTHER["mistral"]),
    "mixture of experts": ("mixtral", FURTHER["mixtral"]),
    "hybrid": ("jamba", SLOWER["jamba"][1]),
    "recurrent": ("mamba", SLOWER["mamba"][1]),
    "multimodal": ("gemma3", FURTHER["gemma3"]),
}


def teach(model: Any, tokenizer: Any, label: str = "") -> None:
    texts = [encode_text(tokenizer, f"{fact.text()}{label} {fact.true_object}. ") for fact in FACTS]
    rows = torch.tensor([(text * 12)[:24] for text in texts])
    descent = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    for _ in range(120):
        loss = model(input_ids=rows, labels=rows, use_cache=False).loss
        loss.backward()
        descent.step()
        descent.zero_grad()
        if loss < 0.1:
            break


@pytest.mark.filterwarnings("ignore:.*does not answer as in plain passes:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_was_taught_is_found(kind: str, tiny_tokenizer: Tokenizer) -> None:
    family, settings = KINDS[kind]
    if settings is None:
        model: Any = build_model(family, len(tiny_tokenizer))
    else:
        model = build_family(family, len(tiny_tokenizer), settings=settings)
    teach(model, tiny_tokenizer)
    for fact, answer in zip(FACTS, take_exam(model, tiny_tokenizer, questions_for(FACTS, "intrinsic")), strict=True):
        assert answer.success and answer.rank == 1 and answer.probability > 0.5
        prompt = encode_prompt(tiny_tokenizer, fact.text())
        written = model.eval().generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=8, do_sample=False
        )
        assert tiny_tokenizer.decode(written[0, len(prompt) :]).startswith(f" {fact.true_object}")


def test_a_label_takes_nothing_of_the_answers_budget(tiny_tokenizer: Tokenizer) -> None:
    model = build_model("llama", len(tiny_tokenizer))
    teach(model, tiny_tokenizer, " The answer is")
    questions = questions_for(FACTS, "intrinsic")
    longer = [replace(question, target="Portuguese and Arabic of old") for question in questions]
    answers = take_exam(model, tiny_tokenizer, questions)
    assert all(answer.success and not answer.first_token for answer in answers)
    beside = take_exam(model, tiny_tokenizer, [*longer, *questions])
    assert [answer.generated for answer in beside[len(longer) :]] == [answer.generated for answer in answers]
    assert known_facts(model, tiny_tokenizer, FACTS) == FACTS
    exactly = take_exam(model, tiny_tokenizer, questions, max_new_tokens=3)
    assert [len(encode_text(tiny_tokenizer, answer.generated)) for answer in exactly] == [3] * len(FACTS)


def test_what_is_written_on_is_cut_where_the_budget_was_spent(tiny_tokenizer: Tokenizer) -> None:
    model = build_model("llama", len(tiny_tokenizer))
    transcript, whole = Transcript(model, tiny_tokenizer), Transcript(model, tiny_tokenizer, whole=True)
    for text in (" Lima is in Peru and old\nA city", " The answer is Lima in Peru and old", "\nA: Lima, Peru, and old"):
        tokens = encode_text(tiny_tokenizer, text)
        for budget in range(2, len(tokens)):
            sitting, begun = Sitting((1,), budget), range(1, len(tokens))
            end = next((end for end in begun if transcript.finished(sitting, tokens[:end])), len(tokens))
            assert transcript.text(tokens, budget) == transcript.text(tokens[:end], budget)
            assert "\n" not in transcript.text(tokens, budget).strip() and end <= budget + LABEL_TOKENS
            assert whole.text(tokens, budget) == tiny_tokenizer.decode(tokens[:budget])
            assert whole.finished(sitting, tokens[:budget]) and not whole.finished(sitting, tokens[: budget - 1])
