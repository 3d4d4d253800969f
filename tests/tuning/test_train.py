"""Fine-tuning: the loss is the model's own, runs repeat bit for bit, weights stay float32, and ends are as promised."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LabelSmoother

from indelible.errors import ConfigError, TrainingDivergedError
from indelible.exam.callback import RetentionCallback
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact
from indelible.tuning.objective import OBJECTIVES, Features, Run, tuning_settings
from indelible.tuning.rows import draw_rows
from indelible.tuning.settings import TuningSettings
from indelible.tuning.task import TASKS, Example
from indelible.tuning.train import fine_tune
from indelible.tuning.training import callbacks, judging, trainer
from indelible.tuning.training.batches import collated, usual_precision
from indelible.tuning.training.judging import token_loss
from tiny_families import SHAPE, build_family
from tiny_models import Make, Tokenizer, build_tokenizer, with_dropout


def settings(**options: Any) -> TuningSettings:
    tiny = {"learning_rate": 1e-2, "steps": 4, "max_tokens": 128, "batch_size": 4, "heldout_examples": 8}
    return tuning_settings(tiny | {"warmup_steps": 0} | options)


def some_rows(tokenizer: Tokenizer, objective: str) -> list[Features]:
    examples = [
        Example("What is 12 + 7?\nAnswer:", "19"),
        Example("The capital of Norway\nis what? Answer:", "Oslo"),
        Example("What is 40 + 2 - 3 + 12 - 3 in all?\nAnswer:", "forty eight"),
    ]
    made = OBJECTIVES.get(objective)
    return [row for example in examples for row in made.rows(tokenizer, example, TuningSettings(), ())]


def judged(model: PreTrainedModel, tokenizer: Tokenizer, rows: list[Features], batch_size: int = 3) -> float:
    """The held-out loss of rows, two times as many in a batch as in training."""
    options = settings(batch_size=batch_size, precision="fp32")
    return token_loss(Run(model, model, tokenizer, options, (), rows), rows)


def test_held_out_loss_is_the_mean_over_tokens_whatever_the_batches(
    tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model, rows = tiny_model("llama"), some_rows(tiny_tokenizer, "reason")
    model.train()
    total, count = 0.0, 0
    for row in rows:  # one by one, through the model's own loss
        bearing = sum(label >= 0 for label in row.labels)
        with torch.no_grad():
            loss = model(torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss
        total, count = total + float(loss) * bearing, count + bearing
    for batch_size in (1, 2):
        assert judged(model, tiny_tokenizer, rows, batch_size) == pytest.approx(total / count, rel=1e-5)
    assert model.training


class Meddling(TrainerCallback):
    """Draws random numbers and leaves the model in another mode, as a careless callback does."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        torch.rand(7)
        random.random()
        np.random.rand(3)
        kwargs["model"].eval()


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
def test_the_same_seed_gives_the_same_bits_with_and_without_a_callback(
    precision: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    def weights(seed: int, *callbacks: TrainerCallback) -> torch.Tensor:
        model = with_dropout(tiny_model("gpt2"))
        # Few rows, so that they are shuffled anew during the run.
        fine_tune(
            model,
            tiny_tokenizer,
            settings(precision=precision, train_examples=8, steps=4, heldout_examples=2),
            seed=seed,
            callbacks=callbacks,
        )
        return torch.cat([tensor.detach().flatten() for tensor in model.parameters()])

    torch.manual_seed(11)
    first = weights(5)
    torch.manual_seed(12)
    assert torch.equal(first, weights(5))
    assert torch.equal(first, weights(5, Meddling(), Meddling()))
    assert not torch.equal(first, weights(6))


def test_the_callers_random_state_config_and_tokenizer_stay_as_they_were(
    tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = tiny_model("qwen2")
    model.train()
    model.get_input_embeddings().requires_grad_(False)
    required = [tensor.requires_grad for tensor in model.parameters()]
    config = copy.deepcopy(model.config.to_dict())
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    fine_tune(model, tiny_tokenizer, settings(steps=1))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert [tensor.requires_grad for tensor in model.parameters()] == required
    assert model.config.to_dict() == config
    assert "forward" not in vars(model), "the Trainer has wrapped the model's forward"
    assert tiny_tokenizer.pad_token is None
    assert not model.training
    assert all(tensor.grad is None for tensor in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
def test_checkpointing_leaves_nothing_behind(precision: str, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    attributes = set(vars(model))
    fine_tune(model, tiny_tokenizer, settings(steps=1, gradient_checkpointing=True, precision=precision))
    assert set(vars(model)) == attributes and not model.is_gradient_checkpointing
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Types(TrainerCallback):
    """Notes the types of weights, optimizer state, and of what the model computes outside the training loss."""

    def __init__(self) -> None:
        self.weights: set[torch.dtype] = set()
        self.state: set[torch.dtype] = set()
        self.stateful = 0
        self.inside: set[torch.dtype] = set()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        def hook(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
            self.inside.add(output.dtype)

        self.handle = kwargs["model"].get_submodule("model.layers.1.mlp.down_proj").register_forward_hook(hook)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.handle.remove()
        self.weights = {tensor.dtype for tensor in kwargs["model"].parameters()}
        self.stateful = len(kwargs["optimizer"].state)
        self.state = {
            value.dtype for entry in kwargs["optimizer"].state.values() for key, value in entry.items() if key != "step"
        }


@pytest.mark.parametrize(("precision", "computed"), [("fp32", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_weights_and_optimizer_state_are_float32_in_either_precision(
    precision: str, computed: torch.dtype, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model, types = tiny_model("llama"), Types()
    frozen = {"model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight"}
    fine_tune(model, tiny_tokenizer, settings(steps=2, precision=precision), frozen=frozen, callbacks=[types])
    assert types.weights == types.state == {torch.float32}
    assert types.inside == {computed}
    assert types.stateful == len(list(model.parameters())) - len(frozen)


def test_a_result_counts_steps_tokens_and_losses(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    calls: list[tuple[int, int, str]] = []
    model = tiny_model("llama")
    result = fine_tune(
        model,
        tiny_tokenizer,
        settings(steps=3, accumulation=2, evaluate_every=3),
        progress=lambda done, total, note: calls.append((done, total, note)),
    )
    assert result.steps == 3 and result.train_rows == 24 and result.heldout_rows == 8
    assert [entry["step"] for entry in result.log] == [1, 2, 3]
    assert all({"loss", "grad_norm", "learning_rate"} <= entry.keys() for entry in result.log)
    assert 24 * 16 < result.tokens <= 24 * 128
    assert [(done, total) for done, total, _ in calls] == [(1, 3), (2, 3), (3, 3)] and "held-out" in calls[-1][2]
    assert result.figure == "loss" and result.before.keys() == result.after.keys() == {"exact_match", "loss"}
    assert result.after["loss"] == result.log[-1]["heldout_loss"] < result.before["loss"]


class AllowingTF32(TrainerCallback):
    """What TrainingArguments(tf32=True) does where there is a GPU that has it."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        torch.backends.fp32_precision = "tf32"


def test_what_a_trainer_allows_of_the_process_ends_with_it_and_no_exam_is_taken_in_it(
    tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    seen = list[tuple[bool, str]]()
    model = tiny_model("llama")
    watched = model.get_submodule("model.layers.0")
    before = torch.backends.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    with watched.register_forward_pre_hook(
        lambda module, _: seen.append((module.training, torch.backends.cuda.matmul.fp32_precision))
    ):
        fine_tune(model, tiny_tokenizer, settings(steps=2), callbacks=[AllowingTF32()])
    tried = (True, before[1])  # the pass that shows where gradients come to, before anything is allowed
    assert set(seen) - {tried} == {(True, "tf32"), (False, "ieee")}
    assert (torch.backends.fp32_precision, torch.backends.cuda.matmul.fp32_precision) == before


@pytest.mark.parametrize("objective", ["text", "reason"])
def test_a_step_with_an_exam_keeps_its_log_and_its_look_at_the_held_out_figures(
    objective: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    fact = Fact("a", "Paris", "capital", "{} is in", "France")
    exam = RetentionCallback(questions_for([fact], "intrinsic"), tiny_tokenizer, every=2)
    options = {"objective": objective, "steps": 5, "evaluate_every": 2, "max_tokens": 64, "heldout_examples": 2}
    result = fine_tune(tiny_model("llama"), tiny_tokenizer, settings(**options), callbacks=[exam])
    assert list(exam.taken) == [0, 2, 4, 5]
    assert [entry["step"] for entry in result.log] == [1, 2, 3, 4, 5]
    assert [entry["step"] for entry in result.log if "heldout_loss" in entry] == [2, 4, 5]
    assert list(result.looks) == [2, 4, 5] and result.looks[5] == result.after["loss"]


def test_an_exam_takes_the_utility_along_and_ends_no_run_by_it(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    options = settings(steps=6, evaluate_every=2, patience=1, learning_rate=1e-9)  # no look brings a better figure
    found = []
    for exams in ([], [RetentionCallback([], tiny_tokenizer, every=1)]):
        result = fine_tune(tiny_model("llama"), tiny_tokenizer, options, callbacks=exams)
        found.append((result.steps, result.after, dict(result.looks)))
    assert found[0][:2] == found[1][:2]
    assert list(found[0][2]) == [2, 4] and list(found[1][2]) == [1, 2, 3, 4]
    assert found[0][2].items() <= found[1][2].items()


def test_the_time_of_training_leaves_out_exams_and_held_out_figures(
    tiny_model: Make, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on by one in each pass of training, and by much more in every other and in callbacks."""
    model, now = tiny_model("llama"), [0.0]
    model.register_forward_hook(lambda module, given, made: now.append(now[-1] + (1 if module.training else 1000)))
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(process_time=lambda: now[-1], perf_counter=None))

    class Slow(TrainerCallback):
        def on_init_end(self, *about: Any, **kwargs: Any) -> None:
            now.append(now[-1] + 100)

        on_step_end = on_init_end

    fact = Fact("a", "Paris", "capital", "{} is in", "France")
    exam = RetentionCallback(questions_for([fact], "intrinsic"), tiny_tokenizer, every=2)
    result = fine_tune(model, tiny_tokenizer, settings(evaluate_every=3), callbacks=[exam, Slow()])
    assert list(exam.taken) == [0, 2, 4] and list(result.looks) == [2, 3, 4]
    assert result.training_seconds == result.steps == 4


class Registering(TrainerCallback):
    """Notes the events that it is told of."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append("init")

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append("begin")


def test_callbacks_are_told_that_the_trainer_is_made_and_let_go_of_it(
    tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    registering = Registering()
    exam = RetentionCallback([], tiny_tokenizer, every=5)
    fine_tune(tiny_model("llama"), tiny_tokenizer, settings(steps=1), callbacks=[registering, exam])
    assert registering.seen == ["init", "begin"]
    assert exam._log is None


def test_accumulation_equals_a_larger_batch(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    losses = []
    for batch_size, accumulation in ((8, 1), (4, 2), (2, 4)):
        options = {"batch_size": batch_size, "accumulation": accumulation, "precision": "fp32", "steps": 2}
        result = fine_tune(tiny_model("llama"), tiny_tokenizer, settings(**options))
        losses.append([entry["loss"] for entry in result.log])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0] == pytest.approx(losses[2], rel=1e-4)


@pytest.mark.parametrize("objective", ["text", "reason"])
def test_a_batch_of_many_tokens_is_read_in_parts_and_loses_the_same(
    objective: str, tiny_model: Make, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"objective": objective, "batch_size": 8, "precision": "fp32", "steps": 3, "heldout_examples": 3}
    found = []
    for tokens in (10**6, 300):
        monkeypatch.setitem(trainer.AT_ONCE, "cpu", tokens)
        seen: list[int] = []
        model = tiny_model("llama")
        model.model.register_forward_hook(lambda _module, _given, out, seen=seen: seen.append(out[0].shape[0]))
        result = fine_tune(model, tiny_tokenizer, settings(**options))
        found.append(([entry["loss"] for entry in result.log], result.tokens, seen))
    assert 8 in found[0][2] and 8 not in found[1][2] and found[1][1] == found[0][1]
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)


def test_the_figures_of_the_last_step_are_taken_once(
    tiny_model: Make, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def counted(run: Run[Any], rows: Any) -> float:
        taken.append(len(rows))
        return token_loss(run, rows)

    monkeypatch.setattr(judging, "token_loss", counted)
    result = fine_tune(tiny_model("llama"), tiny_tokenizer, settings(steps=4, evaluate_every=2))
    assert taken == [8] * 3, "before, and after two and four steps"
    assert result.after["loss"] == result.log[-1]["heldout_loss"]
    fine_tune(tiny_model("llama"), tiny_tokenizer, settings(steps=4, evaluate_every=2, tuner="lora"))
    assert taken == [8] * 7, "once more after merging"


def test_label_smoothing_is_the_trainers_own(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    own = {"precision": "fp32", "trainer": {"label_smoothing_factor": 0.5}}
    options = settings(objective="text", steps=1, train_examples=4, **own)
    rows = draw_rows(TASKS.get("text"), OBJECTIVES.get("text"), tiny_tokenizer, options, facts=(), seed=0)
    batch = collated([row.as_dict() for row in rows.train], pad=0)
    model = tiny_model("llama")
    labels = batch.pop("labels")
    with torch.no_grad():
        expected = LabelSmoother(epsilon=0.5)(model(**batch), labels, shift_labels=True)
    result = fine_tune(model, tiny_tokenizer, options)
    assert result.log[0]["loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="processors are asked otherwise here")
def test_a_processor_computes_in_bfloat16_only_if_it_has_instructions_for_it() -> None:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if "avx512f" not in flags:
        pytest.skip("a processor without AVX-512")
    has = "avx512_bf16" in flags or "amx_bf16" in flags
    assert usual_precision(torch.device("cpu")) == ("bf16-mixed" if has else "fp32")


def test_training_stops_at_the_held_out_loss(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    result = fine_tune(
        tiny_model("llama"),
        tiny_tokenizer,
        settings(steps=50, train_examples=40, stop_at={"loss": 5.0}, evaluate_every=2),
    )
    heldout = [entry["heldout_loss"] for entry in result.log if "heldout_loss" in entry]
    assert result.steps < 50 and result.steps % 2 == 0 and result.reached
    assert heldout[-1] == result.after["loss"] <= 5.0
    assert all(loss > 5.0 for loss in heldout[:-1])
    assert not any("heldout_exact_match" in entry for entry in result.log), "what no rule asks for is not paid for"


@pytest.mark.parametrize(
    ("schedule", "steps", "rates"),
    [
        ("constant", 3, [1, 1, 1]),
        ("constant", 12, [0.5, *[1] * 11]),
        ("constant", 20, [1 / 3, 2 / 3, *[1] * 18]),
        ("linear", 10, [0.5, *(one / 10 for one in range(9, 0, -1))]),
    ],
)
def test_no_step_is_lost_to_the_warm_up(
    schedule: str, steps: int, rates: list[float], tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    chosen = settings(steps=steps, schedule=schedule, warmup_steps=2, train_examples=8, learning_rate=1e-3)
    log = fine_tune(tiny_model("llama", layers=2), tiny_tokenizer, chosen).log
    assert [entry["learning_rate"] for entry in log] == pytest.approx([rate * 1e-3 for rate in rates])


def test_a_dose_that_ends_a_run_early_ends_its_schedule_too(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    chosen = settings(steps=None, dose=[400], train_examples=60, schedule="linear", warmup_steps=2, learning_rate=1e-3)
    log = fine_tune(tiny_model("llama"), tiny_tokenizer, chosen).log
    assert len(log) < 60 / chosen.batch_size / 2
    assert log[0]["learning_rate"] == pytest.approx(1e-3), "of so few steps none is taken by the warm-up"
    assert log[-1]["learning_rate"] <= 1.5e-3 / len(log)


def test_a_dose_beyond_the_rows_repeats_them_and_says_so(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    chosen = settings(steps=None, dose=[2_000], train_examples=4, heldout_examples=2)
    with pytest.warns(UserWarning, match=r"A dose of 2,000 tokens repeats 4 rows of reason: \d+ tokens"):
        result = fine_tune(tiny_model("llama", layers=2), tiny_tokenizer, chosen)
    assert result.train_rows == 4 and result.steps > 1 and result.tokens >= 2_000


def test_a_learning_rate_that_blows_up_says_so(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    with pytest.raises(TrainingDivergedError, match=r"step \d+ .*learning rate 1e\+30"):
        fine_tune(model, tiny_tokenizer, settings(learning_rate=1e30), frozen={"model.norm.weight"})
    assert all(tensor.requires_grad for tensor in model.parameters()) and not model.training
    with pytest.raises(TrainingDivergedError, match="step 1 "):  # found only by the held-out loss
        fine_tune(tiny_model("llama"), tiny_tokenizer, settings(learning_rate=1e38, steps=1))


def test_examples_that_speak_of_a_fact_are_not_trained_on(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    thursday = Fact("day", "Thursday", "follows", "After {} comes", "Friday")
    result = fine_tune(tiny_model("llama"), tiny_tokenizer, settings(steps=12), facts=[thursday])
    assert result.train_rows == 48
    assert result.dropped and all("thursday" in drop.text.lower() for drop in result.dropped)


def test_frozen_names_are_checked(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    with pytest.raises(ConfigError, match=r"model\.layer\.0"):
        fine_tune(model, tiny_tokenizer, settings(), frozen={"model.layer.0"})
    with pytest.raises(ConfigError, match="Every parameter"):
        fine_tune(model, tiny_tokenizer, settings(), frozen={name for name, _ in model.named_parameters()})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_refused(dtype: torch.dtype, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    model.model.layers[2].mlp.down_proj.to(dtype)
    with pytest.raises(ConfigError, match=r"model\.layers\.2\.mlp\.down_proj\.weight.*in float32"):
        fine_tune(model, tiny_tokenizer, settings())


def test_a_process_trains_on_one_device_and_that_is_the_models(
    tiny_model: Make, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TrainingArguments] = []
    prepared = TrainingArguments.__post_init__

    def with_four_gpus(arguments: TrainingArguments) -> None:
        prepared(arguments)
        arguments._n_gpu = 4
        seen.append(arguments)

    monkeypatch.setattr(TrainingArguments, "__post_init__", with_four_gpus)
    fine_tune(tiny_model("llama"), tiny_tokenizer, settings(steps=1))
    assert seen[-1].n_gpu == 1
    found = TrainingArguments.device.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(
        TrainingArguments, "device", property(lambda arguments: found(arguments) and torch.device("cuda:1"))
    )
    with pytest.raises(ConfigError, match=r"on cpu.*train it on cuda:1.*Move it"):
        fine_tune(tiny_model("llama"), tiny_tokenizer, settings(steps=1))


def test_a_held_out_loss_leaves_each_module_in_its_own_mode(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama").train()
    model.model.layers[1].eval()
    modes = [module.training for module in model.modules()]
    judged(model, tiny_tokenizer, some_rows(tiny_tokenizer, "text"))
    assert [module.training for module in model.modules()] == modes


def test_the_padding_token_makes_no_difference(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    padded = build_tokenizer(pad="<|pad|>")
    rows = some_rows(padded, "text")
    model = tiny_model("gpt2")
    own = judged(model, padded, rows)
    padded.pad_token = padded.eos_token
    assert judged(model, padded, rows) == own


def test_a_padding_token_that_the_model_lacks_is_not_used(tiny_model: Make) -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<|beyond|>"})
    model = tiny_model("gpt2")
    assert tokenizer.pad_token_id == model.get_input_embeddings().num_embeddings
    assert fine_tune(model, tokenizer, settings(steps=2, batch_size=4)).steps == 2
    assert tokenizer.pad_token == "<|beyond|>"


def test_the_best_model_is_chosen_by_a_retention_figure(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """The base model knows its own answers; tuning forgets them, so that the first checkpoint is the best."""
    model = tiny_model("llama")
    ids = tiny_tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    said = tiny_tokenizer.decode(model.generate(ids, max_new_tokens=3, do_sample=False)[0, ids.shape[1] :])
    fact = Fact("1", "France", "capital", "The capital of {} is", true_object="Oslo", new_object=said.strip())
    callback = RetentionCallback(questions_for([fact], "edited"), tiny_tokenizer, every=1)
    row = {"input_ids": list(range(3, 13)), "labels": list(range(3, 13))}
    arguments = TrainingArguments(
        str(tmp_path),
        **{"max_steps": 3, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1},
        **{"load_best_model_at_end": True, "metric_for_best_model": "retention/edited/prompt"},
        **{"greater_is_better": True, "learning_rate": 0.3, "report_to": "none", "use_cpu": True, "warmup_steps": 1},
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=[row], eval_dataset=[row], callbacks=[callback])
    trainer.train()
    shares = callback.curve().query("kind == 'prompt' and step > 0").set_index("step")["success"]
    assert trainer.state.best_metric == shares.max() and trainer.state.best_global_step == shares.idxmax()


class Groups(TrainerCallback):
    """Which parameters the optimizer decays."""

    decayed: frozenset[str] = frozenset()

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        names = {id(parameter): name for name, parameter in parts["model"].named_parameters()}
        groups = [group for group in parts["optimizer"].param_groups if group["weight_decay"]]
        self.decayed = frozenset(names[id(parameter)] for group in groups for parameter in group["params"])


_SMALL = {**SHAPE, "num_hidden_layers": 1, "num_key_value_heads": 2}
_MAMBA = {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4, "time_step_rank": 4}


@pytest.mark.parametrize(
    ("family", "small", "tuner", "part"),
    [
        ("mamba", _MAMBA, "full", "mixer.A_log"),
        ("mamba", _MAMBA, "full", "mixer.D"),
        ("mamba", _MAMBA, "full", "norm_f.weight"),
        ("llama", {**SHAPE, "num_hidden_layers": 1}, "dora", "lora_magnitude_vector.default.weight"),
    ],
)
def test_weight_decay_is_of_matrices(
    family: str, small: dict[str, Any], tuner: str, part: str, tiny_tokenizer: Tokenizer
) -> None:
    model = build_family(family, len(tiny_tokenizer), settings=small)
    groups = Groups()
    fine_tune(model, tiny_tokenizer, settings(steps=1, objective="text", tuner=tuner), callbacks=[groups])
    assert groups.decayed and not [name for name in groups.decayed if name.endswith(part)]
    assert any(name.endswith(("in_proj.weight", "q_proj.weight", "lora_A.default.weight")) for name in groups.decayed)
