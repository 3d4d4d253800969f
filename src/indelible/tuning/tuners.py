"""Tuners: how the parameters that no mask freezes are trained.

``full`` trains them themselves. All others are adapters of peft, by the name of their peft type (``lora``, ``ia3``,
``oft``, ...; ``dora`` is LoRA with decomposed weights), put on the linear layers whose weights are not frozen, and merged
into them at the end. What is frozen is exact for them too: no adapter touches it, so that merging changes nothing there.

Adapters are put into the very model that is tuned. Trainers, callbacks and exams go on working with that model and not
with a wrapper around it, and what comes out is an ordinary checkpoint whichever tuner was used.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from indelible.errors import ConfigError, UnknownNameError, suggest

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

FULL = "full"
DORA = "dora"
_KNOWN = (FULL, "lora", DORA)

# peft's own names for what is the same thing everywhere.
_FIELDS = {"rank": ("r",), "alpha": ("lora_alpha", "alpha"), "dropout": ("lora_dropout", "module_dropout")}

_REASONS = {
    "adalora": "it moves ranks between layers in a loop of its own, which no Trainer drives",
    "xlora": "it mixes adapters that are trained already",
    "poly": "its adapters are chosen by task and cannot be merged",
    "trainable_tokens": "it trains embeddings, no layer",
}


class TunerSettings(BaseModel):
    """Options of a tuner, beside those of the training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tuner: str = Field("full", description="full, lora, dora, or another adapter by the name of its peft type")
    rank: Annotated[int, Field(ge=1)] = Field(16, description="adapters that have one: rank")
    alpha: Annotated[float, Field(gt=0)] = Field(32, description="adapters that have one: scale, divided by the rank")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="adapters that have one: dropout on their way in")
    target_modules: tuple[str, ...] | None = Field(
        None, description="adapters: modules by the ends of their names, or patterns with *; None: all linear layers"
    )
    tuner_options: dict[str, Any] = Field({}, description="adapters: passed through to peft's own configuration")

    @field_validator("tuner")
    @classmethod
    def _known_tuner(cls, name: str) -> str:
        name = name.lower()
        if name not in _KNOWN and name not in (known := tuner_names()):
            raise UnknownNameError("tuner", name, known)
        return name


@dataclasses.dataclass(frozen=True)
class Adapted:
    """What is trained inside the block of ``adapted``.

    Attributes:
        adapted_modules: paths of the modules that adapters were put on.
        n_trained: numbers that are trained.
        n_total: numbers that the model has without adapters.
    """

    adapted_modules: tuple[str, ...]
    n_trained: int
    n_total: int


def tuner_names() -> list[str]:
    """All tuners, those of peft included that cannot be used here (``check_tuner`` says why)."""
    from peft import PeftType

    return sorted({FULL, DORA, *(kind.value.lower() for kind in PeftType)})


def check_tuner(settings: TunerSettings) -> None:
    """Whether an adapter's options fit its kind, and it can be merged.

    Raises:
        ConfigError: if they do not, or it cannot.
    """
    if settings.tuner != FULL:
        _config(settings, ["any"])


@contextmanager
def adapted(model: PreTrainedModel, settings: TunerSettings, frozen: Collection[str]) -> Iterator[Adapted]:
    """Train what is not frozen, in the way of a tuner, inside the block.

    Adapters draw their beginnings from torch's own generator. When the block ends well they are merged; when it does
    not, they are taken out. Either way the model has its own modules, and each parameter its own ``requires_grad``,
    again.

    Args:
        model: float32.
        settings: of the tuner.
        frozen: names of parameters that keep every bit.

    Raises:
        ConfigError: if ``frozen`` names a parameter that the model lacks, or leaves nothing to train, or if the options
            do not fit the tuner or the model.
    """
    parameters = dict(model.named_parameters())
    if unknown := sorted(set(frozen) - parameters.keys()):
        raise ConfigError(
            f"The frozen parameter {unknown[0]!r} is not in this model.",
            "Take the names from frozen_parameters for this very model.",
        )
    required = {name: parameter.requires_grad for name, parameter in parameters.items()}
    if not any(required[name] for name in parameters.keys() - set(frozen)):
        raise ConfigError("Every parameter is frozen.", "Use a mask that freezes less.")
    attributes = frozenset(vars(model))
    try:
        for name in frozen:
            parameters[name].requires_grad_(False)
        if settings.tuner == FULL:
            yield _counted(model, (), parameters)
        else:
            with _with_adapters(model, settings, frozen) as modules:
                # Options may ask for biases too; a mask is stronger.
                for name in frozen:
                    parameters[name].requires_grad_(False)
                yield _counted(model, modules, parameters)
    finally:
        for added in frozenset(vars(model)) - attributes:
            delattr(model, added)
        for name, parameter in parameters.items():
            parameter.requires_grad_(required[name])


@contextmanager
def _with_adapters(model: PreTrainedModel, settings: TunerSettings, frozen: Collection[str]) -> Iterator[tuple[str, ...]]:
    from peft import get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.pytorch_utils import Conv1D

    modules = _targets(model, settings, frozen)
    config = _config(settings, modules)
    if hasattr(config, "fan_in_fan_out") and "fan_in_fan_out" not in settings.tuner_options:
        config.fan_in_fan_out = all(isinstance(model.get_submodule(path), Conv1D) for path in modules)
    try:
        tuner = get_peft_model(model, config).base_model
    except (ValueError, NotImplementedError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"The tuner {settings.tuner!r} refuses this model: {reason}", "Use another tuner.") from error
    try:
        for layer in model.modules():
            if isinstance(layer, BaseTunerLayer) and type(layer).merge is BaseTunerLayer.merge:
                raise ConfigError(f"Adapters of {settings.tuner!r} cannot be merged into weights.", "Use another tuner.")
        yield tuple(modules)
    except BaseException:
        tuner.unload()
        raise
    tuner.merge_and_unload(safe_merge=True)


def _counted(model: nn.Module, modules: tuple[str, ...], parameters: Mapping[str, nn.Parameter]) -> Adapted:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Adapted(modules, trained, sum(parameter.numel() for parameter in parameters.values()))


def _targets(model: PreTrainedModel, settings: TunerSettings, frozen: Collection[str]) -> list[str]:
    """Paths of the modules to adapt: linear layers but the head (for ln_tuning, norms), that no mask freezes."""
    from indelible.tuning.freeze import norm_parameters

    if settings.tuner == "ln_tuning":
        candidates = sorted({name.rpartition(".")[0] for name in norm_parameters(model)})
    else:
        candidates = _linear_modules(model)
    if settings.target_modules is not None:
        for wanted in settings.target_modules:
            if not any(_meant(path, wanted) for path in candidates):
                ends = {path.rpartition(".")[2] for path in candidates}
                raise ConfigError(f"No module to adapt is named {wanted!r}.", suggest(wanted, ends))
        candidates = [path for path in candidates if any(_meant(path, wanted) for wanted in settings.target_modules)]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    free = [path for path in candidates if names[id(model.get_submodule(path).weight)] not in frozen]
    if not free:
        raise ConfigError(
            f"Every module that {settings.tuner!r} would adapt is frozen.", "Freeze less, or name other target_modules."
        )
    return free


def _linear_modules(model: PreTrainedModel) -> list[str]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    embedding = model.get_input_embeddings().weight
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and module.weight is not embedding
    ]


def _meant(path: str, wanted: str) -> bool:
    return path == wanted or path.endswith(f".{wanted}") or ("*" in wanted and fnmatchcase(path, wanted))


def _config(settings: TunerSettings, modules: Collection[str]) -> Any:
    """peft's configuration, which adapts exactly these modules.

    Raises:
        ConfigError: as ``check_tuner``.
    """
    from peft import PeftType
    from peft.config import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    name = "lora" if settings.tuner == DORA else settings.tuner
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name.upper())]
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    if issubclass(kind, PromptLearningConfig) or "target_modules" not in fields or name in _REASONS:
        why = _REASONS.get(name, "it puts something beside the weights, and nothing of it can be merged into them")
        raise ConfigError(f"The tuner {settings.tuner!r} cannot be used here: {why}.", "Use lora, dora or full.")
    for option in settings.tuner_options:
        if option not in fields or option in ("peft_type", "target_modules"):
            raise ConfigError(f"The tuner {settings.tuner!r} has no option {option!r}.", suggest(option, fields))
    options: dict[str, Any] = {}
    for own, theirs in _FIELDS.items():
        known = next((field for field in theirs if field in fields), None)
        if known is not None:
            options[known] = getattr(settings, own)
    if "lora_alpha" in options and float(options["lora_alpha"]).is_integer():
        options["lora_alpha"] = int(options["lora_alpha"])
    if settings.tuner == DORA:
        options["use_dora"] = True
    # A pattern, which peft matches in full: names in a list would also match other modules that end alike.
    options["target_modules"] = "|".join(re.escape(path) for path in modules)
    try:
        return kind(**{**options, **settings.tuner_options})
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"The tuner {settings.tuner!r} refuses its options: {reason}", "Mend them.") from error
