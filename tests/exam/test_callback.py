"""The callback watches a training run and leaves no trace in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from indelible.errors import ConfigError
from indelible.exam.callback import RetentionCallback
from indelible.exam.exam import answers_frame, take_exam
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact
from tiny_families import build_family
from tiny_models import SENTENCES, Make, Tokenizer, with_dropout

FACTS = [Fact("o", "Oslo", "country", "{} is a city in", "Norway", "Peru", (), ("Find {} in",))]
QUESTIONS = [*questions_for(FACTS, "edited"), *questions_for(FACTS, "intrinsic")]


def train(folder: Path, model: Any, tokenizer: Any, callbacks: list[Any], **options: Any) -> Trainer:
    rows = []
    for sentence in SENTENCES:
        ids = tokenizer(sentence)["input_ids"][:16]
        rows.append({"input_ids": ids, "labels": ids})
    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
        **{"save_strategy": "no", "learning_rate": 1e-2, "max_steps": 6, **options},
    )
    set_seed(3)
    trainer = Trainer(
        model, arguments, train_dataset=rows, eval_dataset=rows, data_collator=_collate, callbacks=callbacks
    )
    trainer.train()
    return trainer


class StopAt(TrainerCallback):
    """Ends training at a step, as a trainer's own rules do."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_parts: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


def _collate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("bf16", [False, True])
def test_training_is_the_same_with_and_without(
    tmp_path: Path, tiny_model: Make, tiny_tokenizer: Tokenizer, bf16: bool
) -> None:
    alone, watched, start = (with_dropout(tiny_model("gpt2")) for _ in range(3))
    train(tmp_path, alone, tiny_tokenizer, [], bf16=bf16)
    callback = RetentionCallback(QUESTIONS, tiny_tokenizer, every=2)
    train(tmp_path, watched, tiny_tokenizer, [callback], bf16=bf16)
    for (name, value), other, before in zip(
        alone.state_dict().items(), watched.state_dict().values(), start.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
        assert not torch.equal(value, before) or value.unique().numel() == 1, name

    curve = callback.curve()
    assert curve.columns[0] == "step"
    assert list(curve["step"].unique()) == [0, 2, 4, 6]
    # The last point of the curve is what the finished model answers, in its stored precision.
    final = answers_frame(take_exam(watched, tiny_tokenizer, QUESTIONS))
    last = curve[curve["step"] == 6].drop(columns=["step", "tokens"]).reset_index(drop=True)
    assert last.drop(columns=["log_prob", "probability", "margin"]).equals(
        final.drop(columns=["log_prob", "probability", "margin"])
    )
    assert last["log_prob"].to_numpy() == pytest.approx(final["log_prob"].to_numpy(), abs=1e-5)
    assert curve.groupby("step")["log_prob"].mean().nunique() == 4
    first = answers_frame(take_exam(start, tiny_tokenizer, QUESTIONS))["log_prob"].to_numpy()
    assert curve[curve["step"] == 0]["log_prob"].to_numpy() == pytest.approx(first, abs=1e-5)


def test_the_log_holds_the_share_of_successes(tmp_path: Path, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    callback = RetentionCallback(QUESTIONS, every=3)
    with pytest.raises(ConfigError, match="no tokenizer"):
        train(tmp_path, with_dropout(tiny_model("gpt2")), tiny_tokenizer, [callback])
    callback = RetentionCallback(QUESTIONS, tiny_tokenizer, every=3)
    trainer = train(tmp_path, with_dropout(tiny_model("gpt2")), tiny_tokenizer, [callback])
    logged = [entry for entry in trainer.state.log_history if "success/edited/prompt" in entry]
    assert [entry["step"] for entry in logged] == [0, 3, 6]
    curve = callback.curve()
    for entry in logged:
        at = curve[
            (curve["step"] == entry["step"]) & (curve["fact_set"] == "intrinsic") & (curve["kind"] == "paraphrase")
        ]
        assert entry["success/intrinsic/paraphrase"] == at["success"].mean()
    json.dumps(trainer.state.log_history)


def test_a_model_without_a_cache_of_keys_is_asked_too(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    states = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    model = build_family("mamba", len(tiny_tokenizer), settings=states)
    callback = RetentionCallback(QUESTIONS, tiny_tokenizer, every=3)
    with pytest.warns(UserWarning, match="MambaForCausalLM .* without a cache"):
        train(tmp_path, model, tiny_tokenizer, [callback])
    assert list(callback.taken) == [0, 3, 6]


def test_the_end_is_asked_wherever_it_is(tmp_path: Path, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    uneven = RetentionCallback(QUESTIONS, tiny_tokenizer, every=4)
    model = with_dropout(tiny_model("gpt2"))
    trainer = train(tmp_path, model, tiny_tokenizer, [uneven])
    assert list(uneven.taken) == [0, 4, 6]
    assert [entry["step"] for entry in trainer.state.log_history if "success/edited/prompt" in entry] == [0, 4, 6]
    final = answers_frame(take_exam(model, tiny_tokenizer, QUESTIONS))
    assert answers_frame(uneven.taken[6])["log_prob"].to_numpy() == pytest.approx(
        final["log_prob"].to_numpy(), abs=1e-5
    )

    stopped = RetentionCallback(QUESTIONS, tiny_tokenizer, every=4)
    train(tmp_path, with_dropout(tiny_model("gpt2")), tiny_tokenizer, [stopped, StopAt(5)])
    assert list(stopped.taken) == [0, 4, 5]


def test_doses_are_asked_about_after_the_step_that_reaches_them(
    tmp_path: Path, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    callback = RetentionCallback(QUESTIONS, tiny_tokenizer, every=4, doses=[1, 35, 37, 10_000])
    train(tmp_path, with_dropout(tiny_model("gpt2")), tiny_tokenizer, [callback], include_num_input_tokens_seen="all")
    seen = callback.curve().groupby("step")["tokens"].first().to_dict()
    assert seen == {0: 0, 1: 32, 2: 64, 4: 128, 6: 192}  # 2 rows of 16 tokens a step; no run comes to the largest dose


@pytest.mark.parametrize("every", [2, 4])
def test_both_ends_can_be_left_out(tmp_path: Path, tiny_model: Make, tiny_tokenizer: Tokenizer, every: int) -> None:
    callback = RetentionCallback(QUESTIONS, tiny_tokenizer, every=every, ends=False)
    train(tmp_path, with_dropout(tiny_model("gpt2")), tiny_tokenizer, [callback])
    assert list(callback.taken) == list(range(every, 6, every))


def test_the_best_model_is_not_asked_for_the_last(tmp_path: Path, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    """Trainer has loaded it when training ends: the last step's answers are those of its evaluation."""
    callback = RetentionCallback(QUESTIONS, tiny_tokenizer, every=4)
    evaluation = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True}
    model = with_dropout(tiny_model("gpt2"))
    trainer = train(tmp_path, model, tiny_tokenizer, [callback], **evaluation, **best)
    assert trainer.state.best_global_step != 6
    assert max(callback.taken) == 6
    loaded = answers_frame(take_exam(model, tiny_tokenizer, QUESTIONS))["log_prob"].to_numpy()
    of = {step: answers_frame(answers)["log_prob"].to_numpy() for step, answers in callback.taken.items()}
    assert loaded == pytest.approx(of[trainer.state.best_global_step], abs=1e-5)
    assert loaded != pytest.approx(of[6], abs=1e-3)


def said_by(model: Any, tokenizer: Tokenizer) -> Fact:
    """What a model answers by itself, as a fact that was edited into it."""
    ids = tokenizer("Lima is the capital of", return_tensors="pt")["input_ids"]
    said = tokenizer.decode(model.generate(ids, max_new_tokens=3, do_sample=False)[0, ids.shape[1] :])
    return Fact("s", "Lima", "capital", "{} is the capital of", "Oslo", said.strip())


def test_retention_is_of_what_was_right_before_and_ends_a_run_that_loses_it(
    tmp_path: Path, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = tiny_model("gpt2")
    questions = questions_for([said_by(model, tiny_tokenizer), *FACTS], "edited")
    callback = RetentionCallback(questions, tiny_tokenizer, stop_below=0.9)
    trainer = train(tmp_path, model, tiny_tokenizer, [callback], learning_rate=0.3, max_steps=25)
    assert callback.every == 2  # a tenth of the run
    first, *_, last = [entry for entry in trainer.state.log_history if "success/edited/prompt" in entry]
    assert first["success/edited/prompt"] == 0.5 and first["retention/edited/prompt"] == 1.0
    assert last["retention/edited/prompt"] == 0.0 and "retention/edited/paraphrase" not in last
    assert trainer.state.global_step == last["step"] == 2
    with pytest.raises(ConfigError, match="No edited fact is answered before training"):
        train(
            tmp_path, tiny_model("gpt2"), tiny_tokenizer, [RetentionCallback(QUESTIONS, tiny_tokenizer, stop_below=1)]
        )


def test_no_exam_yet_and_no_exam_ever() -> None:
    empty = RetentionCallback(QUESTIONS, every=1).curve()
    assert empty.empty and list(empty.columns)[:3] == ["step", "tokens", "fact_set"]
    with pytest.raises(ConfigError, match="stop_below is 90"):
        RetentionCallback(QUESTIONS, stop_below=90)
    with pytest.raises(ConfigError, match="every 0 steps"):
        RetentionCallback(QUESTIONS, every=0)
