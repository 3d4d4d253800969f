"""A model whose linear layers are in NF4 for a while, as a base that adapters are trained over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from indelible.errors import ModelError
from indelible.models.modules.adapters import is_linear
from indelible.models.modules.nf4 import Factors, QuantisedLinear


@contextmanager
def quantised(
    model: PreTrainedModel, beside: Mapping[str, Factors] | None = None, *, plain: Collection[str] = ()
) -> Iterator[frozenset[str]]:
    """Inside the block a model's linear layers are in NF4; after it the very same float32 modules are back.

    Left as they are: the head and the embeddings, weights that several modules share (tied ones), and what is no linear
    module, such as experts that are one tensor. Float32 weights wait on the CPU.

    Args:
        beside: side terms by the name of the weight.
        plain: names of weights that are not quantised.

    Yields:
        the names of the weights that are.

    Raises:
        ConfigError: if bitsandbytes is not installed.
        ModelError: if the model has no such layer.
    """
    head, times = model.get_output_embeddings(), Counter(id(getattr(one, "weight", None)) for one in model.modules())
    originals: dict[str, Any] = {
        path: module
        for path, module in model.named_modules()
        if is_linear(module) and module is not head and times[id(module.weight)] == 1 and f"{path}.weight" not in plain
    }
    if not originals:
        raise ModelError(f"{type(model).__name__} has no linear layer to quantise.", "Use the tuner lora.")
    device, sides = model.device, beside or {}
    try:
        for path, module in originals.items():
            replacement = QuantisedLinear(module, sides.get(f"{path}.weight"))
            hooks = {name: value for name, value in vars(module).items() if name.startswith("_forward_")}
            vars(replacement).update(hooks)
            model.set_submodule(path, replacement)
            module.weight.data = module.weight.data.cpu()
        yield frozenset(f"{path}.weight" for path in originals)
    finally:
        for path, module in originals.items():
            module.weight.data = module.weight.data.to(device)
            model.set_submodule(path, module)


def is_quantised(model: nn.Module) -> bool:
    """Whether any layer of a model is in NF4 here."""
    return any(isinstance(module, QuantisedLinear) for module in model.modules())
