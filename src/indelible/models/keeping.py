"""A model as it was: modules, hooks, attributes, settings and flags after every run, weights too after one that failed.

Trainers and adapters reach into a model in more places than can be listed (forwards, hooks, tags, settings, modules
that peft finds by names of its own), so that all of it is put back, whatever was done.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel


class Kept:
    """What a model holds, to be put back. Weights are kept as they lie; what is changed in place needs ``copy``."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.parameters = dict(model.named_parameters())
        self._flags = {name: parameter.requires_grad for name, parameter in self.parameters.items()}
        self._data: dict[str, Tensor] = {name: parameter.data for name, parameter in self.parameters.items()}
        self._buffers = [
            (module._buffers, name, buffer, buffer.clone())
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        # Handles of hooks know the very dictionary that their hook is in, so that it stays, with its old content.
        self._attributes = [
            (module, type(module), {name: (value, _content(name, value)) for name, value in vars(module).items()})
            for module in model.modules()
        ]
        configs = {id(one): one for module in model.modules() for one in vars(module).values() if _is_config(one)}
        for config in list(configs.values()):
            configs |= {id(one): one for one in vars(config).values() if _is_config(one)}
        self._configs = [
            (one, {name: value if _is_config(value) else copy.deepcopy(value) for name, value in vars(one).items()})
            for one in configs.values()
        ]

    def copy(self, names: Collection[str]) -> None:
        """Keep copies of parameters that are about to change in place, on the CPU."""
        self._data |= {name: self.parameters[name].data.to("cpu", copy=True) for name in names}

    def put_back(self) -> None:
        """All but weights."""
        for module, kind, kept in self._attributes:
            if type(module) is not kind:  # what deals weights out gives modules classes of its own
                module.__class__ = kind
            own = vars(module)
            own.clear()
            for name, (value, content) in kept.items():
                own[name] = value
                if content is not None:
                    value.clear()
                    value.update(content)
        for config, settings in self._configs:
            vars(config).clear()
            vars(config).update(settings)
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(self._flags[name])
            parameter.grad = None

    def put_weights_back(self) -> None:
        """Weights and buffers, bit for bit."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.data = self._data[name].to(parameter.device)
            for table, name, buffer, content in self._buffers:
                table[name] = buffer.copy_(content)


@contextmanager
def kept(model: PreTrainedModel) -> Iterator[Kept]:
    """The model as it was after the block, but for its weights if the block ended well."""
    before = Kept(model)
    try:
        yield before
    except BaseException:
        before.put_back()
        before.put_weights_back()
        raise
    before.put_back()


def _content(name: str, value: Any) -> Any:
    """A copy of a module's table (of children, parameters, hooks); None for all else, and for buffers: some learn."""
    return copy.copy(value) if isinstance(value, dict) and name != "_buffers" else None


def _is_config(value: Any) -> bool:
    return isinstance(value, PretrainedConfig | GenerationConfig)
