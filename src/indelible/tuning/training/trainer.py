"""What the trainers behind the objectives share: transformers' and trl's own classes, under one precision.

Each is the library's class with two things of ours around its loss: the autocast of the run, and a count of tokens. All
else is theirs, and so are their arguments (``tuning.trainer``). Rows come tokenised, the same whatever the trainer.

Mixed precision is bfloat16 autocast over float32 weights: in pure bfloat16 small updates are rounded away, which would
pass for retention. It is opened around the training loss only: the Trainer's own would wrap the model's forward, and an
exam taken by a callback would run in another precision than those before and after training.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PretrainedConfig, Trainer, TrainingArguments
from transformers.training_args import ParallelMode

from indelible.errors import ConfigError, suggest
from indelible.launched import processes
from indelible.models.load import default_device
from indelible.models.trace import product_precision
from indelible.tuning.objective import NO_LOSS, Objective, Run
from indelible.tuning.randomness import kept_random_state
from indelible.tuning.settings import DEFAULT_STEPS, TuningSettings
from indelible.tuning.training.batches import collated, computing
from indelible.tuning.training.scoring import score_labels
from indelible.tuning.training.sharing import check_dealing

# Renamed in transformers 5.2x; trl turns it on by default.
_CHECKPOINTING = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in {field.name for field in dataclasses.fields(TrainingArguments)}
)

BY_LENGTH = {"train_sampling_strategy": "group_by_length"}

AT_ONCE = {"cpu": 2**11, "cuda": 2**14}
"""Tokens that are read at once, by device; a larger batch is read in parts, whose activations need not lie together."""

_SET_AS = {
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "accumulation",
    "activation_checkpointing": "gradient_checkpointing",
    "bf16": "precision",
    "fp16": "precision",
} | {
    name: name for name in ("gradient_checkpointing", "learning_rate", "warmup_steps", "weight_decay", "max_grad_norm")
}

_KEPT_HERE = "a study sends nothing anywhere; `indelible push` does, and in Python fine_tune takes a tracker's callback"
_REACHING_OUT = ("push_to_hub", "hub_", "report_to", "trackio_", "vllm_server")
"""How arguments begin by which figures, weights or a token would leave this machine, or be written down."""
_NOT_TRIED = ("tf32", "full_determinism", "log_level", "log_level_replica")
"""Arguments that change the whole process, or that the machine to which a step goes may take where this one does not.
"""

_WATCHED = "stop rules and divergence are looked for after every step"

DECIDED = {argument: f"set tuning.{option}" for argument, option in _SET_AS.items()} | {
    "output_dir": "nothing is saved by the trainer",
    "seed": "seeds are the study's",
    "logging_steps": _WATCHED,
    "logging_strategy": _WATCHED,
    "logging_nan_inf_filter": "a loss that is no number ends the run",
    "remove_unused_columns": "rows come ready",
    "dataset_kwargs": "rows come ready",
    # findings/trainer_tries_smaller_batches.sh
    "auto_find_batch_size": "what runs out of memory would begin anew, with weights that were trained",
    "accelerator_config": "a batch is tuning.batch_size rows, however many processes read it",
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed"), "`accelerate launch` says how a model is dealt out"),
}
"""Arguments of all trainers that are decided here, and what to do instead of passing them through."""


def _classes(trainer: str) -> tuple[Any, Any]:
    """transformers' or trl's class of a trainer, and that of its arguments; ConfigError where trl is missing."""
    if trainer == "Trainer":
        return Trainer, TrainingArguments
    try:
        with kept_random_state():  # something that trl imports draws random numbers
            trl = importlib.import_module("trl")
            return getattr(trl, trainer), getattr(trl, trainer.replace("Trainer", "Config"))
    except ImportError as error:
        raise ConfigError(
            f"This objective trains with trl's {trainer}, and trl cannot be imported ({error}).",
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


def check_passed_on(settings: TuningSettings, objective: Objective[Any]) -> None:
    """ConfigError unless the trainer is here and takes what is passed through to it, and none of it is decided here or
    sends anything anywhere. Where anything is passed through, arguments, optimizer, schedule and loader are made as
    they will be, of a model of one number: transformers and torch look at many values only then."""
    name = objective.trainer_name
    kind = _classes(name)[1]
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    decided = {**DECIDED, **objective.decides}
    for passed in settings.trainer:
        if passed in decided or passed.startswith(_REACHING_OUT):
            why = decided.get(passed, _KEPT_HERE)
            raise ConfigError(f"'tuning.trainer.{passed}' cannot be passed through: {why}.", "Remove it.")
        if passed not in known:
            raise ConfigError(f"{name} takes no argument {passed!r} ('tuning.trainer').", suggest(passed, known))
    if not settings.trainer:
        return
    given = {key: value for key, value in _passed_on(settings, kind).items() if key not in _NOT_TRIED}
    row = {"input_ids": [0], "labels": [0]}
    with kept_random_state(), product_precision(), tempfile.TemporaryDirectory() as folder:
        model: Any = nn.Linear(1, 1)
        model.config = PretrainedConfig()
        on_cpu = processes() == 1 or default_device().type == "cpu"  # several get to know each other here
        ours = {**_ours(settings, on_cpu=on_cpu), "output_dir": folder, **objective.arguments(settings)}
        try:
            trainer = Trainer(model=model, args=kind(**{**ours, **given}), train_dataset=[row])
            trainer.create_optimizer_and_scheduler(num_training_steps=settings.steps or DEFAULT_STEPS)
            trainer.get_train_dataloader()
        except Exception as error:  # they raise a dozen kinds for one mistake
            raise _refused(name, error) from error


@functools.cache
def _types(kind: Any) -> dict[str, Any]:
    """What each argument of a trainer may be."""
    return {name: TypeAdapter(hint, config={"allow_inf_nan": False}) for name, hint in get_type_hints(kind).items()}


def _passed_on(settings: TuningSettings, kind: Any) -> dict[str, Any]:
    """What is passed through to the trainer, as its arguments have it."""
    found = {}
    for name, value in settings.trainer.items():
        try:
            found[name] = _types(kind)[name].validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Input ")
            raise ConfigError(f"'tuning.trainer.{name}' is {value!r:.60}: it {reason}.", "Change that value.") from None
    return found


def _refused(trainer: str, error: Exception) -> ConfigError:
    reason = f"{' '.join(str(error).split()):.300}".rstrip(".")
    return ConfigError(f"{trainer} refuses its arguments: {reason}.", "Mend 'tuning.trainer'.")


def _ours(settings: TuningSettings, *, on_cpu: bool) -> dict[str, Any]:
    """The arguments of every trainer, as far as settings decide them."""
    return {
        "use_cpu": on_cpu,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        _CHECKPOINTING: settings.gradient_checkpointing,
        "bf16": False,
        "dataloader_pin_memory": not on_cpu,
        "remove_unused_columns": False,
        "optim": "adamw_torch_fused",
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        # the first of several processes reads each batch, as one would alone, and deals out its rows
        "accelerator_config": {"split_batches": processes() > 1, "dispatch_batches": True if processes() > 1 else None},
    }


def made_trainer(
    run: Run[Any], base: Any, rows: list[dict[str, Any]], arguments: Mapping[str, Any], **given: Any
) -> Any:
    """A trainer of the run on rows, ready to train.

    Args:
        base: a class that ``measured`` has made, or one derived from it.
        arguments: what the objective sets in the trainer's arguments; what the user passes through stands above it.
        given: to the trainer itself.

    Raises:
        ConfigError: if the trainer refuses its arguments, or would train on another device than the model's.
    """
    settings, device = run.settings, run.model.device
    kind = _classes(base.library_name)[1]
    own = {"output_dir": run.folder, "seed": run.seed % 2**32, "max_steps": run.steps}
    ours = {**_ours(settings, on_cpu=device.type == "cpu"), **own}
    try:
        found = kind(**{**ours, **arguments, **_passed_on(settings, kind)})
    except (ValueError, TypeError) as error:
        raise _refused(base.library_name, error) from error
    # With several GPUs in view the Trainer would split each batch over replicas, and what is watched would be one.
    found._n_gpu = min(1, found.n_gpu)
    same = (device.type, device.index or 0) == (found.device.type, found.device.index or 0)
    if found.parallel_mode != ParallelMode.DISTRIBUTED and not same:
        raise ConfigError(
            f"The model is on {device}, and this process would train it on {found.device}.",
            f"Move it to {found.device}, or show the process that device alone (CUDA_VISIBLE_DEVICES).",
        )
    if base.library_name == "Trainer":
        return base(model=run.trainee, args=found, train_dataset=rows, **given)
    from datasets import Dataset

    dataset = Dataset.from_list(rows)
    return base(model=run.trainee, args=found, train_dataset=dataset, processing_class=run.tokenizer, **given)


def measured(run: Run[Any], name: str = "Trainer") -> Any:
    """A trainer's class with the run's autocast around its loss, and a count of the tokens that went through it."""
    base: Any = _classes(name)[0]

    class Measured(base):
        library_name = name
        tokens: Tensor | int = 0

        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            check_dealing(self)

        def tokens_seen(self) -> int:
            """By all processes."""
            mine = torch.as_tensor(self.tokens, device=self.accelerator.device)
            return int(self.accelerator.reduce(mine, reduction="sum"))

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            """The library's, over the steps that a dose takes, and with a warm-up that no step is lost to: theirs takes
            the first at a rate of 0."""
            planned = min(num_training_steps, run.expected or num_training_steps)
            made = super().create_scheduler(planned, optimizer)
            steps = min(run.settings.warmup_steps, planned // 10)
            if steps and isinstance(made, LambdaLR):
                rising: list[Callable[[int], float]] = [partial(_rising, steps, one) for one in made.lr_lambdas]
                self.lr_scheduler = made = LambdaLR(made.optimizer, rising)
            return made

        def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
            """Of those that the library decays, matrices: not attention sinks, DoRA's magnitudes, a state space's D,
            and norms that it does not know by their names; nor its A, which Mamba's authors do not decay either."""
            vectors = {name for name, one in model.named_parameters() if one.squeeze().dim() < 2}
            decayed = super().get_decay_parameter_names(model)
            return [name for name in decayed if name not in vectors and not name.endswith("A_log")]

        def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *around: Any, **more: Any) -> Any:
            masks = [inputs[key] for key in ("attention_mask", "prompt_mask", "completion_mask") if key in inputs]
            whole = masks[:1] if "attention_mask" in inputs else masks
            self.tokens = self.tokens + sum(mask.sum() for mask in whole)  # read at the end: no wait for a GPU
            with computing(run):
                return super().compute_loss(model, inputs, *around, **more)

    Measured.__name__ = Measured.__qualname__ = name
    return Measured


def _rising(steps: int, factor: Callable[[int], float], step: int) -> float:
    """A factor of the learning rate at a step (counted from 0), after so many below its peak."""
    return factor(step) * min(1.0, (step + 1) / (steps + 1))


def sequence_trainer(run: Run[Any], name: str) -> Any:
    """What trains on rows of one sequence: trl's SFTTrainer, or transformers' with the loss of ``scoring``."""
    rows, collate = [row.as_dict() for row in run.train], partial(_divisible, pad=run.pad)
    base: Any = measured(run, name)
    own: dict[str, Any] = BY_LENGTH | _in_parts(run)
    if name != "Trainer":
        own |= {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
        return made_trainer(run, base, rows, own, data_collator=collate)
    trainer = made_trainer(run, base, rows, own, data_collator=collate)
    score_labels(run.model, whole=run.whole)
    trainer.model_accepts_loss_kwargs = True  # the number of labels in a step, which its loss is divided by
    return trainer


def _divisible(rows: list[dict[str, Any]], pad: int) -> dict[str, Tensor]:
    """A batch, with rows of one token and no loss where it cannot be divided among the processes."""
    missing = -len(rows) % processes()
    return collated([*rows, *missing * [{"input_ids": [pad], "labels": [NO_LOSS]}]], pad)


def _in_parts(run: Run[Any]) -> dict[str, Any]:
    """Arguments that read a batch in as many equal parts as keep each below ``AT_ONCE``. The loss of a step is divided
    by the labels in all of it, so that nothing else changes; but what routers lose is a figure of a whole batch."""
    size, among = run.settings.batch_size, processes()
    alone = AT_ONCE.get(run.model.device.type, AT_ONCE["cuda"]) // max(len(row.input_ids) for row in run.train)
    rows = among * max(1, alone)
    routed = hasattr(run.model.config.get_text_config(), "output_router_logits")
    parts = [part for part in range(among, size + 1, among) if size % part == 0]
    at_once = size if routed else max(part for part in parts if part <= rows)
    return {
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": run.settings.accumulation * size // at_once,
    }
