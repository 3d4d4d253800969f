"""Adapters of peft around modules of a model that are named exactly, and are what they are taken for.

peft goes by a model's type in places: in families whose experts were modules of their own once it renames what is to be
adapted, in others it refuses a name. Here only modules that are there are adapted, by what they do, so that peft is
shown the modules alone, without the configuration that tells it the type.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from indelible.models.modules.nf4 import QuantisedLinear

_HELD = "model"


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear map and nothing else: routers and grouped projections derive from one, too."""
    if isinstance(module, QuantisedLinear):
        return True
    kind: Any = next((kind for kind in (nn.Linear, Conv1D) if isinstance(module, kind)), None)
    if kind is None or type(module).forward is kind.forward:
        return kind is not None
    weight: Any = module.weight
    width = weight.shape[0 if kind is Conv1D else 1]
    given = torch.arange(6 * width, device=weight.device).cos().to(weight.dtype).view(2, 3, width)
    try:
        with torch.no_grad():
            return torch.allclose(module.forward(given), kind.forward(module, given), rtol=1e-4, atol=1e-6)
    except Exception:  # it takes or returns something else
        return False


def exactly(modules: Collection[str]) -> str:
    """A pattern for modules as peft sees them, which matches in full: names in a list would also match others that end
    alike."""
    return "|".join(re.escape(f"{_HELD}.{path}") for path in sorted(modules))


def put_in(model: PreTrainedModel, config: Any, modules: Collection[str]) -> None:
    """Put adapters of a peft configuration around these modules, and nothing else; raises what peft raises."""
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING  # slow to import

    holder = nn.Module()
    holder.add_module(_HELD, model)
    config.target_modules = exactly(modules)
    PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type](holder, config, "default")
