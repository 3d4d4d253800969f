"""Tuners: how the parameters that no mask freezes are trained.

``full`` trains them themselves. All others are adapters of peft, by the name of their peft type (``lora``, ``ia3``,
``oft``, ...; ``dora`` is LoRA with decomposed weights), put on the linear layers whose weights are not frozen, and
merged into them at the end. What is frozen is exact for them too: no adapter touches it, so that merging changes
nothing there.

Adapters are put into the very model that is tuned. Trainers, callbacks and exams go on working with that model and not
with a wrapper around it, and what comes out is an ordinary checkpoint whichever tuner was used.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from indelible.errors import ConfigError, TrainingDivergedError, UnknownNameError, suggest

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

FULL = "full"
DORA = "dora"
_KNOWN = (FULL, "lora", DORA)

# peft's own names for what is the same thing everywhere.
_FIELDS = {"rank": ("r",), "alpha": ("lora_alpha", "alpha"), "dropout": ("lora_dropout", "module_dropout")}

_REASONS = {
    "adalora": "it moves ranks between layers in a loop of its own, which no Trainer drives",
    "adaption_prompt": "it adds prompts to attention, which are no change of a weight",
    "lily": "its adapters choose among experts for each token and cannot be merged",
    "shadow": "it runs a second network beside the model",
    "xlora": "it mixes adapters that are trained already",
    "poly": "its adapters are chosen by task and cannot be merged",
    "trainable_tokens": "it trains embeddings, no layer",
}

# With these peft would reach past the modules that it is given, and so past the mask.
_BEYOND = frozenset(
    {
        *("exclude_modules", "inference_mode", "layer_replication", "layers_pattern", "layers_to_transform"),
        *("modules_to_save", "peft_type", "target_modules", "target_parameters", "task_type"),
        "trainable_token_indices",
    }
)

_REFUSALS = (ValueError, TypeError, NotImplementedError, RuntimeError, ImportError)


class TunerSettings(BaseModel):
    """Options of a tuner, beside those of the training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tuner: str = Field("full", description="full, lora, dora, or another adapter by the name of its peft type")
    rank: Annotated[int, Field(ge=1)] = Field(16, description="adapters that have one: rank")
    alpha: Annotated[float, Field(gt=0)] = Field(32, description="adapters that have one: scale, divided by the rank")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="adapters that have one: dropout on their way in"
    )
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
        TrainingDivergedError: if what was trained is not finite at the end of the block.
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
                yield _counted(model, modules, parameters)
    finally:
        for added in frozenset(vars(model)) - attributes:
            delattr(model, added)
        for name, parameter in parameters.items():
            parameter.requires_grad_(required[name])


@contextmanager
def _with_adapters(
    model: PreTrainedModel, settings: TunerSettings, frozen: Collection[str]
) -> Iterator[tuple[str, ...]]:
    """Adapters inside the block; after it the model's own modules, with the merged weights if the block ended well."""
    modules = _targets(model, settings, frozen)
    originals = {path: model.get_submodule(path) for path in modules}
    own = dict(model.named_parameters())
    held = {name: own[name].data for path in modules for name in own if name.startswith(f"{path}.")}
    hooks = {path: _taken_hooks(module) for path, module in originals.items()}
    if any(option.startswith("init_") for option in settings.tuner_options):
        held = {name: tensor.clone() for name, tensor in held.items()}  # OLoRA begins by rewriting weights in place
    try:
        _inject(model, settings, originals)
        for name in frozen:  # options may ask for biases too; a mask is stronger
            own[name].requires_grad_(False)
        _check_merging(model, settings, modules, frozen)
        for path in modules:  # what acts beside a module, such as a codebook edit, acts beside its adapter
            vars(model.get_submodule(path)).update(hooks[path])
        direct = {name: parameter for name, parameter in own.items() if parameter.requires_grad}
        held |= {name: parameter.data.clone() for name, parameter in direct.items()}  # trained in place
        yield tuple(modules)
        merged = _merged(model, modules)
        held |= {name: parameter.data for name, parameter in direct.items()} | merged
    finally:
        for path, original in originals.items():
            model.set_submodule(path, original)
            vars(original).update(hooks[path])
        for name, tensor in held.items():
            own[name].data = tensor.to(own[name].device)


def _inject(model: PreTrainedModel, settings: TunerSettings, originals: Mapping[str, nn.Module]) -> None:
    """Put adapters around modules.

    peft's own wrapper is left out: it changes the model's configuration, and nothing here needs it.
    """
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTunerLayer
    from transformers.pytorch_utils import Conv1D

    config = _config(settings, originals)
    if hasattr(config, "fan_in_fan_out") and "fan_in_fan_out" not in settings.tuner_options:
        config.fan_in_fan_out = all(isinstance(module, Conv1D) for module in originals.values())
    if hasattr(config, "feedforward_modules") and config.feedforward_modules is None:
        # Where (IA)3 scales what goes in, not what comes out; peft knows them for some families, by name.
        from indelible.models.layout import find_layout

        inputs = set(find_layout(model).mlp_out) & originals.keys()
        config.feedforward_modules = _exactly(inputs) if inputs else []
    try:
        PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](model, config, "default")
    except _REFUSALS as error:
        raise _refusal(settings, "this model", error) from error
    for path, original in originals.items():
        layer = model.get_submodule(path)
        if not isinstance(layer, BaseTunerLayer):
            raise _refusal(settings, "this model", f"it leaves {path!r} ({type(original).__name__}) as it is")
        layer.train(original.training)


def _check_merging(
    model: PreTrainedModel, settings: TunerSettings, modules: Collection[str], frozen: Collection[str]
) -> None:
    """Merge copies of adapters before anything is trained: they must be mergeable, and leave alone what is frozen.

    A layer's weight is never frozen, but its bias may be, and some adapters change that as well.
    """
    import torch

    tried = set()
    for path in modules:
        layer: Any = model.get_submodule(path)
        before = dict(layer.get_base_layer().named_parameters())
        kept = [name for name in before if f"{path}.{name}" in frozen]
        if not kept and (type(layer), *before) in tried:
            continue
        tried.add((type(layer), *before))
        trial = copy.deepcopy(layer)
        try:
            with torch.no_grad():
                for parameter in trial.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.01)
                trial.merge(safe_merge=True)
        except _REFUSALS as error:
            raise _refusal(settings, f"to be merged into {path!r}", error) from error
        after = dict(trial.get_base_layer().named_parameters())
        for name in kept:
            if not torch.equal(before[name], after[name]):
                raise ConfigError(
                    f"The tuner {settings.tuner!r} changes '{path}.{name}' too, which is frozen.",
                    "Freeze the weight as well, or use lora, dora or full.",
                )


def _merged(model: PreTrainedModel, modules: Collection[str]) -> dict[str, Tensor]:
    """The adapted modules' parameters with the adapters in them, by the names that they have without adapters."""
    import torch

    merged = {}
    for path in modules:
        layer: Any = model.get_submodule(path)
        for parameter in layer.get_base_layer().parameters():
            parameter.data = parameter.data.clone()  # some types add to it in place
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:  # how peft refuses to merge what is not finite
            raise TrainingDivergedError(
                f"The adapter of {path!r} cannot be merged: {error}.", "Train slower."
            ) from error
        for name, parameter in layer.get_base_layer().named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise TrainingDivergedError(f"'{path}.{name}' has become NaN or infinite.", "Lower learning_rate.")
            merged[f"{path}.{name}"] = parameter.data
    return merged


def _taken_hooks(module: nn.Module) -> dict[str, Any]:
    """A module's forward hooks, which it has no longer. Their handles stay good: they know the dictionaries only."""
    taken = {name: value for name, value in vars(module).items() if name.startswith("_forward_")}
    vars(module).update({name: OrderedDict() for name in taken})
    return taken


def _refusal(settings: TunerSettings, what: str, why: object) -> ConfigError:
    reason = " ".join(str(why).split()).rstrip(".")
    return ConfigError(
        f"The tuner {settings.tuner!r} refuses {what}: {reason}.", "Use another tuner, or mend its options."
    )


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
        if option in _BEYOND:
            raise ConfigError(
                f"The option {option!r} of {settings.tuner!r} would have peft choose what is trained.",
                "Choose it by target_modules and the mask.",
            )
        if option not in fields:
            raise ConfigError(
                f"The tuner {settings.tuner!r} has no option {option!r}.", suggest(option, fields - _BEYOND)
            )
    options: dict[str, Any] = {}
    for own, theirs in _FIELDS.items():
        known = next((field for field in (*theirs, f"{name}_{own}") if field in fields), None)
        if known is not None:
            options[known] = getattr(settings, own)
    if "lora_alpha" in options and float(options["lora_alpha"]).is_integer():
        options["lora_alpha"] = int(options["lora_alpha"])
    if settings.tuner == DORA:
        options["use_dora"] = True
    if "oft_block_size" in fields:  # OFT takes the number of blocks or their size, and the other has to be 0
        options["r" if settings.tuner_options.get("oft_block_size") else "oft_block_size"] = 0
    options["target_modules"] = _exactly(modules)
    try:
        return kind(**{**options, **settings.tuner_options})
    except _REFUSALS as error:
        raise _refusal(settings, "its options", error) from error


def _exactly(modules: Collection[str]) -> str:
    """A pattern for modules, which peft matches in full: names in a list would also match others that end alike."""
    return "|".join(re.escape(path) for path in sorted(modules))
