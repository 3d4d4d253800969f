"""The exam in one family: answers, their probabilities and ranks, in the callback of a Trainer too."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from family.plain import EXACT, Off, greedy, log_probs, logits_tv, near
from indelible.exam.callback import RetentionCallback
from indelible.exam.exam import Answer, known_facts, take_exam
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact, Neighbour

FACTS = (
    Fact(
        *("1", "France", "capital", "The capital of {} is", "Paris", "Lima"),
        held_out=("While it rains in the north of Japan and the lazy dog is in Peru, the capital city of {} is",),
        neighbours=(Neighbour("The capital of Norway is", "Oslo"),),
    ),
    Fact("2", "gold", "symbol", "What is the chemical symbol of {}? The answer is", "Au", "Portuguese, and so on"),
    Fact("3", "Egypt", "language", "In {} people speak", "Arabic", "a brown fox"),
)


def exam(model: Any, tokenizer: Any) -> str:
    questions = [question for fact in FACTS for question in questions_for([fact], "edited")]
    answers = take_exam(model, tokenizer, questions)
    for answer in answers:
        check_answer(model, tokenizer, answer)
    callback = RetentionCallback(questions, tokenizer, every=1)
    with tempfile.TemporaryDirectory() as folder:
        _train_nothing(model, callback, folder)
    for answer, again in zip(answers, callback.taken[1], strict=True):
        near(again.log_prob, answer.log_prob, "in a callback, the log-probability")
        if (again.generated, again.rank) != (answer.generated, answer.rank):
            raise Off(f"in a callback {again.generated!r} is generated, and without {answer.generated!r}")
    known = {fact.id for fact in known_facts(model, tokenizer, FACTS)}
    asked = take_exam(model, tokenizer, questions_for(FACTS, "intrinsic"))
    expected = {answer.question.fact_id for answer in asked if answer.question.kind == "prompt" and answer.success}
    if known != expected:
        raise Off(f"known facts: {sorted(known)}, asked one by one {sorted(expected)}")
    return ""


def check_answer(model: Any, tokenizer: Any, answer: Answer) -> None:
    """Hold one answer against the plain reading."""
    question = answer.question
    prompt = tokenizer(question.text)["input_ids"]
    with torch.no_grad():
        for said, text in ((answer.log_prob, question.target), (answer.rival_log_prob, question.rival)):
            if text is None:
                continue
            target = tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
            near(said, float(log_probs(model, prompt, target).sum()), f"log-probability of {text!r}")
        first = tokenizer(f" {question.target}", add_special_tokens=False)["input_ids"][0]
        last_v = logits_tv(model, prompt)[-1]
        rank = 1 + int((last_v > last_v[first]).sum())
        close = int(((last_v - last_v[first]).abs() < EXACT).sum()) - 1
        near(answer.rank, rank, "rank", within=close)
        rival = [] if question.rival is None else tokenizer(f" {question.rival}", add_special_tokens=False)["input_ids"]
        target = tokenizer(f" {question.target}", add_special_tokens=False)["input_ids"]
        count = max(4, 2 + max(len(target), len(rival)))
        tokens, sure = greedy(model, prompt, count)
    if sure == count and answer.generated != (text := written(tokenizer, tokens)):
        raise Off(f"generated {answer.generated!r}, plainly {text!r}")


def written(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of tokens up to the end token, and of it the first line that is not empty."""
    ended = tokens[: tokens.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in tokens else tokens
    text: str = tokenizer.decode(list(ended))
    lead = len(text) - len(text.lstrip())
    return text[:lead] + text[lead:].split("\n")[0]


def _train_nothing(model: Any, callback: Any, folder: str) -> None:
    """One step of transformers' own Trainer at a learning rate of 0."""
    row = {"input_ids": list(range(3, 13)), "labels": list(range(3, 13))}
    arguments = TrainingArguments(
        folder, max_steps=1, learning_rate=0.0, weight_decay=0.0, report_to="none", use_cpu=True, disable_tqdm=True,
        per_device_train_batch_size=1, save_strategy="no",
    )  # fmt: skip

    def loss(trained: Any, inputs: dict[str, Any], **_more: Any) -> Any:
        return trained(input_ids=inputs["input_ids"], use_cache=False).logits.square().mean()

    trainer = Trainer(model=model, args=arguments, train_dataset=[row], callbacks=[callback])
    trainer.compute_loss = loss  # not the model's own: that of a captioner wants images
    trainer.train()
    model.eval()
