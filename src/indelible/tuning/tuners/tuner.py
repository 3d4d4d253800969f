"""Tuners: how the parameters that no mask freezes are trained.

``full`` trains them themselves. The others that are built in are adapters of peft, by the name of their peft type
(``lora``, ``ia3``, ``oft``, ...; ``dora`` is LoRA with decomposed weights), put on the linear layers whose weights are
not frozen, and merged into them at the end. What is frozen is exact for them too: no adapter touches it, so that
merging changes nothing there. ``qlora`` is LoRA over a base in NF4 (models/modules/nf4.py), beside which what was
learned stays in float32. Other distributions register theirs through the entry-point group ``indelible.tuners``.

Adapters are put into the very model that is tuned (adapting.py). Trainers, callbacks and exams go on working with that
model and not with a wrapper around it, and what comes out is an ordinary checkpoint whichever tuner was used; but of
``qlora``, whose model is asked where it was tuned, and is no checkpoint.

Nothing here imports torch or peft before it is needed: a study's settings are read without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from indelible.errors import ConfigError, UnknownNameError, suggest
from indelible.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FULL = "full"
DORA = "dora"
QLORA = "qlora"

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
_BEYOND = {
    *("exclude_modules", "inference_mode", "layer_replication", "layers_pattern", "layers_to_transform"),
    *("modules_to_save", "peft_type", "target_modules", "target_parameters", "task_type", "trainable_token_indices"),
}

REFUSALS = (ValueError, TypeError, RuntimeError, ImportError)
"""What peft raises, from one kind of adapter to the next, where it cannot work with a model or an option. What it has
not implemented is a RuntimeError, too."""


class TunerSettings(BaseModel):
    """Options of a tuner, beside those of the training."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    tuner: str = Field("full", description="full, lora, qlora, dora, another adapter by its peft type, or a plug-in")
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
        if not (name in TUNERS.taken or name in TUNERS) and name not in (known := tuner_names()):
            raise UnknownNameError("tuner", name, known)
        return name


Tuner = Callable[["PreTrainedModel", TunerSettings, Collection[str]], AbstractContextManager[Sequence[str]]]
"""A way of training that is none of peft's: of a model, with the names of what is frozen. Inside the block, which is
given the paths of the modules that are adapted, what is to be trained requires gradients. After it the model has its
own modules again, with what was learned in their weights if it ended well, and nothing in those that are frozen."""

TUNERS: Registry[Tuner] = Registry("tuner", group="indelible.tuners", taken=(FULL, "lora", QLORA, DORA))
"""Tuners of other distributions, by names in lower case."""


def tuner_names() -> list[str]:
    """All tuners, those of peft included that cannot be used here (``check_tuner`` says why)."""
    from peft import PeftType

    return sorted({FULL, QLORA, DORA, *(kind.value.lower() for kind in PeftType), *TUNERS})


def check_tuner(settings: TunerSettings) -> None:
    """ConfigError unless an adapter's options fit its kind, it can be merged, and what it needs is installed."""
    if settings.tuner == QLORA:
        from indelible.models.modules.nf4 import bitsandbytes

        bitsandbytes()
    if settings.tuner != FULL and settings.tuner not in TUNERS:
        peft_config(settings)


def refusal(settings: TunerSettings, what: str, why: object) -> ConfigError:
    """What is said where a tuner cannot do something."""
    reason = " ".join(str(why).split()).rstrip(".")
    return ConfigError(
        f"The tuner {settings.tuner!r} refuses {what}: {reason}.", "Use another tuner, or mend its options."
    )


def peft_config(settings: TunerSettings) -> Any:
    """peft's configuration, without the modules to adapt; errors as of ``check_tuner``."""
    from peft import PeftType
    from peft.config import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    name = "lora" if settings.tuner in (DORA, QLORA) else settings.tuner
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
    options: dict[str, Any] = {"target_modules": "chosen later"}
    for own, theirs in _FIELDS.items():
        for known in [field for field in (*theirs, f"{name}_{own}") if field in fields][:1]:
            options[known] = getattr(settings, own)
    if "lora_alpha" in options and float(options["lora_alpha"]).is_integer():
        options["lora_alpha"] = int(options["lora_alpha"])
    if settings.tuner == DORA:
        options["use_dora"] = True
    if "oft_block_size" in fields:  # OFT takes the number of blocks or their size, and the other has to be 0
        options["r" if settings.tuner_options.get("oft_block_size") else "oft_block_size"] = 0
    try:
        return kind(**{**options, **settings.tuner_options})
    except REFUSALS as error:
        raise refusal(settings, "its options", error) from error
