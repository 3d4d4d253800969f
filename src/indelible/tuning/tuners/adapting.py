"""Adapters in the model that is tuned, for as long as it is tuned: put in, proven to merge, merged and taken out.

What comes out is the model with its own modules again, and nothing that is frozen has been touched. Where the block did
not end well, all weights are as before it.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from indelible.errors import ConfigError, TrainingDivergedError, suggest
from indelible.models.keeping import Kept, kept
from indelible.models.layout import find_layout
from indelible.models.modules.adapters import exactly, is_linear, put_in
from indelible.models.modules.nf4 import Factors, QuantisedLinear
from indelible.models.modules.quantised import is_quantised
from indelible.models.trace import evaluation_mode
from indelible.tuning.freezing.mask import norm_parameters
from indelible.tuning.randomness import kept_random_state
from indelible.tuning.tuners.tuner import FULL, QLORA, REFUSALS, TUNERS, TunerSettings, peft_config, refusal

_READ = 12
"""Tokens that are read to see whether adapters begin as nothing."""


@dataclass(frozen=True)
class Adapted:
    """Paths of the modules that adapters were put on, how many numbers are trained, and the model as it was before."""

    adapted_modules: tuple[str, ...]
    n_trained: int
    before: Kept


@contextmanager
def adapted(model: PreTrainedModel, settings: TunerSettings, frozen: Collection[str]) -> Iterator[Adapted]:
    """Train what is not frozen, in the way of a tuner, inside the block.

    Adapters draw their beginnings from torch's own generator. They are merged if the block ends well; else the weights
    are those from before. Either way all else is as it was (see ``keeping``).

    Raises:
        ConfigError: if ``frozen``, names of parameters that keep every bit, names one that the model lacks, or leaves
            nothing to train, if the model is quantised and the tuner is not qlora or the other way round, if the
            options do not fit the tuner or the model, or if the adapters change what the model says before any step
            (findings/peft_begins_elsewhere.sh).
        TrainingDivergedError: if what was trained is not finite at the end of the block.
    """
    parameters = dict(model.named_parameters())
    if unknown := sorted(set(frozen) - parameters.keys()):
        raise ConfigError(
            f"The frozen parameter {unknown[0]!r} is not in this model.",
            "Take the names from frozen_parameters for this very model.",
        )
    free = [one for name, one in parameters.items() if name not in frozen]
    if not any(one.requires_grad or not one.is_floating_point() for one in free):  # or, quantised, has an adapter
        raise ConfigError("Every parameter is frozen.", "Use a mask that freezes less.")
    if (settings.tuner == QLORA) != is_quantised(model):
        raise ConfigError(
            f"The model is {'quantised' if is_quantised(model) else 'not quantised'}, and the tuner is"
            f" {settings.tuner!r}.",
            "Take qlora inside indelible.edits.beside.side_term.quantised_with, and there alone.",
        )
    with kept(model) as before:
        if any(option.startswith("init_") for option in settings.tuner_options):
            before.copy(parameters)  # OLoRA begins by rewriting weights in place
        for name in frozen:
            parameters[name].requires_grad_(False)
        tuner = TUNERS.get(settings.tuner) if settings.tuner in TUNERS else _with_adapters
        with nullcontext(()) if settings.tuner == FULL else tuner(model, settings, frozen) as modules:
            before.copy([name for name, parameter in parameters.items() if parameter.requires_grad])
            trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
            yield Adapted(tuple(modules), trained, before)


@contextmanager
def _with_adapters(model: PreTrainedModel, settings: TunerSettings, frozen: Collection[str]) -> Iterator[list[str]]:
    """Adapters inside the block; after it their parameters in the model's own, if the block ended well."""
    modules = _targets(model, settings, frozen)
    said = _said(model)
    originals = {path: model.get_submodule(path) for path in modules}
    own = dict(model.named_parameters())
    hooks = {path: _taken_hooks(module) for path, module in originals.items()}
    _inject(model, settings, originals)
    for name in frozen:  # options may ask for biases too; a mask is stronger
        own[name].requires_grad_(False)
    _check_merging(model, settings, modules, frozen)
    for path in modules:  # what acts beside a module, such as a codebook edit, acts beside its adapter
        vars(model.get_submodule(path)).update(hooks[path])
    moved = float((_said(model) - said).abs().max() / said.abs().max())
    if moved > torch.finfo(model.dtype).eps ** 0.5:
        raise ConfigError(
            f"With the adapters of {settings.tuner!r} the model says something else before any step: logits move by"
            f" {moved:.0%} of the largest.",
            "Give tuner_options that let them begin as nothing (init_weights, init_lora_weights), or another tuner.",
        )
    yield modules
    quantised = [path for path in modules if isinstance(originals[path], QuantisedLinear)]
    learned = {path: _learned(path, model.get_submodule(path)) for path in quantised}
    for name, tensor in _merged(model, [path for path in modules if path not in learned]).items():
        own[name].data = tensor
    for path, factors in learned.items():
        layer: Any = model.get_submodule(path)
        layer.get_base_layer().add(*factors)


def _said(model: PreTrainedModel) -> Tensor:
    """Logits behind a few tokens, in evaluation mode."""
    embeddings: Any = model.get_input_embeddings()
    tokens = torch.arange(_READ, device=model.device)[None] % len(embeddings.weight)
    with torch.no_grad(), evaluation_mode(model), kept_random_state():
        logits: Tensor = model(input_ids=tokens, use_cache=False).logits.float()
    return logits


def _inject(model: PreTrainedModel, settings: TunerSettings, originals: Mapping[str, nn.Module]) -> None:
    """Put adapters around modules, without peft's own wrapper: it changes the model's configuration."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = peft_config(settings)
    if hasattr(config, "fan_in_fan_out") and "fan_in_fan_out" not in settings.tuner_options:
        config.fan_in_fan_out = all(isinstance(module, Conv1D) for module in originals.values())
    if hasattr(config, "feedforward_modules") and config.feedforward_modules is None:
        # Where (IA)3 scales what goes in, not what comes out; peft knows them for some families, by name.
        inputs = {memory.path for memory in find_layout(model).known_memories.values()} & originals.keys()
        config.feedforward_modules = exactly(inputs) if inputs else []
    try:
        put_in(model, config, originals)
    except REFUSALS as error:
        raise refusal(settings, "this model", error) from error
    for path, original in originals.items():
        layer = model.get_submodule(path)
        if not isinstance(layer, BaseTunerLayer):
            raise refusal(settings, "this model", f"it leaves {path!r} ({type(original).__name__}) as it is")
        layer.train(original.training)


def _check_merging(
    model: PreTrainedModel, settings: TunerSettings, modules: Collection[str], frozen: Collection[str]
) -> None:
    """Merge copies of adapters before anything is trained: they must be mergeable, and leave alone what is frozen. A
    layer's weight never is, but its bias may be, and some adapters change that as well."""
    tried = set()
    for path in modules:
        layer: Any = model.get_submodule(path)
        if isinstance(layer.get_base_layer(), QuantisedLinear):
            if layer.lora_variant or any(layer.lora_bias.values()):
                raise refusal(settings, f"the quantised {path!r}", "more than two thin factors would be trained")
            continue
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
        except REFUSALS as error:
            raise refusal(settings, f"to be merged into {path!r}", error) from error
        after = dict(trial.get_base_layer().named_parameters())
        for name in kept:
            if not torch.equal(before[name], after[name]):
                raise ConfigError(
                    f"The tuner {settings.tuner!r} changes '{path}.{name}' too, which is frozen.",
                    "Freeze the weight as well, or use lora, dora or full.",
                )


def _merged(model: PreTrainedModel, modules: Collection[str]) -> dict[str, Tensor]:
    """The adapted modules' parameters with the adapters in them, by the names that they have without adapters."""
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


def _learned(path: str, layer: Any) -> Factors:
    """What LoRA adds to a quantised weight."""
    (name,) = layer.active_adapters
    left, right = layer.lora_B[name].weight.detach() * layer.scaling[name], layer.lora_A[name].weight.detach()
    if not bool(torch.isfinite(left).all() and torch.isfinite(right).all()):
        raise TrainingDivergedError(f"The adapter of {path!r} has become NaN or infinite.", "Lower learning_rate.")
    return left, right


def _taken_hooks(module: nn.Module) -> dict[str, Any]:
    """A module's forward hooks, which it has no longer. Their handles stay good: they know the dictionaries only."""
    taken = {name: value for name, value in vars(module).items() if name.startswith("_forward_")}
    vars(module).update({name: OrderedDict() for name in taken})
    return taken


def _targets(model: PreTrainedModel, settings: TunerSettings, frozen: Collection[str]) -> list[str]:
    """Paths of the modules to adapt: linear layers but the head (for ln_tuning, norms), that no mask freezes and no two
    layers share."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings().weight
    if settings.tuner == "ln_tuning":
        candidates = sorted({name.rpartition(".")[0] for name in norm_parameters(model)})
    else:
        candidates = [
            path
            for path, module in model.named_modules()
            if is_linear(module) and module is not head and module.weight is not embedding
        ]
    if settings.target_modules is not None:
        for wanted in settings.target_modules:
            if not any(_meant(path, wanted) for path in candidates):
                ends = {path.rpartition(".")[2] for path in candidates}
                raise ConfigError(f"No module to adapt is named {wanted!r}.", suggest(wanted, ends))
        candidates = [path for path in candidates if any(_meant(path, wanted) for wanted in settings.target_modules)]
    # one matrix under several names, as in Zamba's blocks: an adapter would be merged once for each
    times = Counter(id(getattr(module, "weight", None)) for module in model.modules())
    shared = [path for path in candidates if times[id(model.get_submodule(path).weight)] > 1]
    if shared and settings.target_modules is not None:
        raise ConfigError(
            f"The tuner {settings.tuner!r} cannot adapt {shared[0]!r}: several layers share its weights.",
            "Name target_modules that no two layers share, or take the tuner full.",
        )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    free = [
        path for path in candidates if path not in shared and names[id(model.get_submodule(path).weight)] not in frozen
    ]
    if shared:
        warnings.warn(
            f"The tuner {settings.tuner!r} leaves out {len(shared)} modules whose weights several layers share, such as"
            f" {shared[0]!r}.",
            stacklevel=2,
        )
    if not free:
        raise ConfigError(
            f"Every module that {settings.tuner!r} would adapt is frozen.", "Freeze less, or name other target_modules."
        )
    return free


def _meant(path: str, wanted: str) -> bool:
    return path == wanted or path.endswith(f".{wanted}") or ("*" in wanted and fnmatchcase(path, wanted))
