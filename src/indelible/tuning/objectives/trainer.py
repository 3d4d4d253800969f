"""The trainers behind the objectives: transformers' and trl's own classes, under one precision.

Each is the library's class with two things of ours around its loss: the autocast of the run, and a count of tokens.
The rest, from sampling to optimising, is theirs, and so are their arguments: what ``tuning.trainer`` names is passed
through. Rows come tokenised, so that what a run trains on is the same whatever the trainer.

Mixed precision is bfloat16 autocast over float32 weights: in pure bfloat16 small updates are rounded away, which would
pass for retention. The autocast is opened around the training loss only. Leaving it to the Trainer would wrap the
model's forward, and an exam taken by a callback during training would run in another precision than those before and
after it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Trainer, TrainingArguments
from transformers.training_args import ParallelMode

from indelible.errors import ConfigError, suggest
from indelible.tuning.batches import (
    Collator,
    as_dicts,
    at_label_positions,
    autocast,
    takes_logits_to_keep,
    token_loss,
)
from indelible.tuning.objectives.classify import Labelled
from indelible.tuning.objectives.judges import pair_log_probs
from indelible.tuning.objectives.objective import Run
from indelible.tuning.objectives.reward import SAMPLING_ARGUMENTS, Problem
from indelible.tuning.randomness import kept_random_state
from indelible.tuning.settings import TuningSettings

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Names of the schedules as transformers knows them."""

OWN = {
    "output_dir": "nothing is saved by the trainer",
    "max_steps": "set tuning.steps",
    "num_train_epochs": "set tuning.epochs",
    "per_device_train_batch_size": "set tuning.batch_size",
    "gradient_accumulation_steps": "set tuning.accumulation",
    "seed": "seeds are the study's",
    "bf16": "set tuning.precision",
    "fp16": "set tuning.precision",
    "gradient_checkpointing": "set tuning.gradient_checkpointing",
    "activation_checkpointing": "set tuning.gradient_checkpointing",
    "num_generations": "set tuning.generations",
    "max_completion_length": "set tuning.answer_tokens",
    "beta": "set tuning.beta",
    "learning_rate": "set tuning.learning_rate",
    "warmup_steps": "set tuning.warmup_steps",
    "weight_decay": "set tuning.weight_decay",
    "max_grad_norm": "set tuning.max_grad_norm",
    "logging_steps": "stop rules and divergence are looked for after every step",
    "logging_strategy": "stop rules and divergence are looked for after every step",
    "logging_nan_inf_filter": "a loss that is no number ends the run",
    "remove_unused_columns": "rows come ready",
    "dataset_kwargs": "rows come ready",
    "precompute_ref_log_probs": "the reference is the model before tuning",
}
"""Arguments of trainers that an option of ours decides, and what to do instead of passing them through."""


def trainer_class(name: str) -> Any:
    """transformers' or trl's class of that name.

    Raises:
        ConfigError: if it is trl's and trl is not installed.
    """
    if name == "Trainer":
        return Trainer
    try:
        with kept_random_state():  # something that trl imports draws random numbers
            return getattr(importlib.import_module("trl"), name)
    except ImportError as error:
        raise ConfigError(
            f"This objective trains with trl's {name}, and trl cannot be imported ({error}).",
            "Install it: pip install 'indelible[trl]'.",
        ) from error


@contextlib.contextmanager
def quiet_trl() -> Iterator[None]:
    """Errors of trl alone are logged inside the block: its advice is about arguments that are set here on purpose."""
    logger = logging.getLogger("trl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def arguments_class(name: str) -> type[TrainingArguments]:
    """The class of a trainer's arguments.

    Raises:
        ConfigError: as ``trainer_class``.
    """
    found: type[TrainingArguments] = (
        TrainingArguments if name == "Trainer" else trainer_class(name.replace("Trainer", "Config"))
    )
    return found


def check_passed_on(passed: Mapping[str, Any], trainer: str) -> None:
    """Whether the trainer knows what is passed through to it, and none of it is decided by an option of ours.

    Raises:
        ConfigError: naming the argument.
    """
    if not passed and trainer == "Trainer":
        return
    known = {field.name for field in dataclasses.fields(arguments_class(trainer)) if field.init}
    for name in passed:
        if name in OWN:
            raise ConfigError(f"'tuning.trainer.{name}' cannot be passed through: {OWN[name]}.", "Remove it there.")
        if name not in known:
            raise ConfigError(f"{trainer} takes no argument {name!r} ('tuning.trainer').", suggest(name, known))


def arguments(settings: TuningSettings, device: torch.device, folder: str, seed: int, steps: int, name: str) -> Any:
    """What makes the arguments for the trainer of that name.

    Args:
        settings: of the run.
        device: that the model is on.
        folder: for whatever the trainer would write.
        seed: of the order of rows, and of dropout.
        steps: optimizer steps at most.
        name: of the trainer.

    Returns:
        A function of what an objective sets; what the user passes through comes last.
    """
    on_cpu = device.type == "cpu"
    # Renamed in transformers 5.2x; trl turns it on by default.
    known = {field.name for field in dataclasses.fields(arguments_class(name))}
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    ours: dict[str, Any] = {
        "output_dir": folder,
        "use_cpu": on_cpu,
        "seed": seed % 2**32,
        "max_steps": steps,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        checkpointing: settings.gradient_checkpointing,
        "bf16": False,
        "dataloader_pin_memory": not on_cpu,
        "remove_unused_columns": False,
        "optim": "adamw_torch_fused",
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": SCHEDULES[settings.schedule],
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }

    def made(**objective: Any) -> TrainingArguments:
        try:
            found = arguments_class(name)(**{**ours, **objective, **settings.trainer})
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{name} refuses its arguments: {reason}", "Mend 'tuning.trainer'.") from error
        # With several GPUs in view the Trainer would split each batch over replicas, and what is watched would be one.
        found._n_gpu = min(1, found.n_gpu)
        if found.parallel_mode != ParallelMode.DISTRIBUTED and not _same_device(device, found.device):
            raise ConfigError(
                f"The model is on {device}, and this process would train it on {found.device}.",
                f"Move it to {found.device}, or show the process that device alone (CUDA_VISIBLE_DEVICES).",
            )
        return found

    return made


def plain_trainer(run: Run) -> Any:
    """transformers' Trainer, with logits at label positions only."""

    base: Any = _measured(Trainer)

    class AtLabels(base):
        """Asks for logits at label positions only."""

        def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *around: Any, **more: Any) -> Any:
            batch = at_label_positions(inputs, takes_logits_to_keep(self.accelerator.unwrap_model(model)))
            return super().compute_loss(model, batch, *around, **more)

    return AtLabels(
        model=run.trainee,
        args=run.arguments(train_sampling_strategy="group_by_length"),
        train_dataset=as_dicts(run.train),
        data_collator=Collator(run.pad),
        compute_loss_func=token_loss,
    )


def head_trainer(run: Run) -> Any:
    """transformers' Trainer on a classification head over the trunk."""
    rows: Sequence[Labelled] = run.train
    data = [{"input_ids": list(row.prompt_ids), "label": row.label} for row in rows]
    return _measured(Trainer)(
        model=run.trainee,
        args=run.arguments(train_sampling_strategy="group_by_length"),
        train_dataset=data,
        data_collator=_HeadCollator(run.pad),
        compute_loss_func=_label_loss,
    )


def sft_trainer(run: Run) -> Any:
    """trl's SFTTrainer on rows that are tokenised and labelled."""
    return _measured(trainer_class("SFTTrainer"))(
        model=run.trainee,
        args=run.arguments(
            train_sampling_strategy="group_by_length",
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=_dataset(as_dicts(run.train)),
        data_collator=Collator(run.pad),
        processing_class=run.tokenizer,
    )


def dpo_trainer(run: Run) -> Any:
    """trl's DPOTrainer, with the model before tuning as reference."""
    before = pair_log_probs(run.model, run.train, run).tolist()
    rows = [
        {**row, "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        for row, (chosen, rejected) in zip(as_dicts(run.train), before, strict=True)
    ]

    base: Any = _measured(trainer_class("DPOTrainer"))

    class Ready(base):
        """Rows come tokenised, with their reference log-probabilities."""

        def _prepare_dataset(self, dataset: Any, *_around: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, dataset: Any, *_around: Any) -> Any:
            return dataset

    return Ready(
        model=run.trainee,
        args=run.arguments(
            beta=run.settings.beta, max_length=None, precompute_ref_log_probs=True, disable_dropout=False
        ),
        train_dataset=_dataset(rows),
        processing_class=run.tokenizer,
    )


def grpo_trainer(run: Run) -> Any:
    """trl's GRPOTrainer; each problem scores its own answers."""
    settings = run.settings
    rows: Sequence[Problem] = run.train
    if (settings.batch_size * settings.accumulation) % settings.generations:
        raise ConfigError(
            f"batch_size x accumulation ({settings.batch_size * settings.accumulation}) answers to a step are no"
            f" multiple of generations ({settings.generations}).",
            "Change one of them.",
        )

    def reward(completions: Sequence[str], problem: Sequence[int], **_around: Any) -> list[float]:
        return [float(rows[number].score(said)) for number, said in zip(problem, completions, strict=True)]

    return _measured(trainer_class("GRPOTrainer"))(
        model=run.trainee,
        reward_funcs=reward,
        args=run.arguments(
            beta=0.0,
            num_generations=settings.generations,
            max_completion_length=settings.answer_tokens,
            **SAMPLING_ARGUMENTS,
        ),
        train_dataset=_dataset([{**row.as_dict(), "problem": number} for number, row in enumerate(rows)]),
        processing_class=run.tokenizer,
    )


def _measured(base: Any) -> Any:
    """A trainer's class with the run's autocast around its loss, and a count of the tokens that went through it."""

    class Measured(base):
        """The library's trainer under our precision."""

        precision = "fp32"
        tokens = 0

        def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *around: Any, **more: Any) -> Any:
            masks = [inputs[key] for key in ("attention_mask", "prompt_mask", "completion_mask") if key in inputs]
            whole = masks[:1] if "attention_mask" in inputs else masks
            self.tokens += sum(int(mask.sum()) for mask in whole)
            with autocast(self.args.device, self.precision):
                return super().compute_loss(model, inputs, *around, **more)

    Measured.__name__ = Measured.__qualname__ = base.__name__
    return Measured


class _HeadCollator:
    """Texts padded on the right, with the numbers of their labels."""

    def __init__(self, pad: int) -> None:
        self._collate = Collator(pad)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = self._collate([{"input_ids": row["input_ids"], "labels": row["input_ids"]} for row in rows])
        del batch["labels"]
        return {**batch, "labels": torch.tensor([row["label"] for row in rows])}


def _label_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    total = functional.cross_entropy(outputs["logits"].float(), labels, reduction="sum")
    return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def _dataset(rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(rows)


def _same_device(one: torch.device, other: torch.device) -> bool:
    """Whether two devices are the same; without an index, a kind's first is meant."""
    return (one.type, one.index or 0) == (other.type, other.index or 0)
