"""Where a model keeps what editing needs, found in its module tree and proved by a traced forward pass.

No family is named here. The residual blocks are the largest list of modules; attention is the smallest part of a block
that carries information from one position to a later one; the MLP's output projection is the last linear map outside
attention that returns to the hidden width. Each claim is checked on real activations before anyone relies on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from indelible.errors import LayoutError
from indelible.models.trace import by_row, capture, evaluating, first_tensor, replace

_PROBE_LENGTH = 8


@dataclass(frozen=True)
class Layout:
    """The parts of a causal language model, as module paths in order of the layers.

    Attributes:
        blocks: residual blocks, each with its ``attention``.
        mlp_out: output projection of each block's MLP, the linear memory that editors change.
        in_out: whether the weights of ``mlp_out`` are stored (in, out), as Conv1D does, rather than (out, in).
        embeddings: every module with parameters that runs before the first block.
        after_blocks: every module with parameters that runs after the last block, but for the head (the final norm).
        head: the output projection onto the vocabulary; ``tied`` where it shares its weight with the input embedding.
        hidden_size: width of the residual stream.
        key_width: input width of ``mlp_out``.
        adds_to_residual: whether what ``mlp_out`` returns is added to the residual stream as it is (no norm between),
            in every kind of block.
    """

    blocks: tuple[str, ...]
    attention: tuple[str, ...]
    mlp_out: tuple[str, ...]
    in_out: bool
    embeddings: tuple[str, ...]
    after_blocks: tuple[str, ...]
    head: str
    tied: bool
    hidden_size: int
    key_width: int
    adds_to_residual: bool
    blocks_return_tuple: bool

    @property
    def n_layers(self) -> int:
        """Number of residual blocks."""
        return len(self.blocks)

    @property
    def mlp_out_weight(self) -> tuple[str, ...]:
        """Parameter name of each layer's memory."""
        return tuple(f"{path}.weight" for path in self.mlp_out)

    def layer_of(self, parameter: str) -> int | None:
        """The layer whose block holds the parameter; None for embeddings, final norm and head."""
        return next((layer for layer, block in enumerate(self.blocks) if parameter.startswith(f"{block}.")), None)


def find_layout(model: PreTrainedModel, *, blocks: str | None = None, mlp_out: str | None = None) -> Layout:
    """Find and prove the layout of a causal language model, on any device; the model is left as it was.

    Args:
        blocks: path of the list of residual blocks, where it cannot be found.
        mlp_out: path of the MLP's output projection within a block, where it cannot be found.

    Raises:
        LayoutError: saying what was looked for and not found.
    """
    with evaluating(model), torch.no_grad():
        block_paths = _find_blocks(model, blocks)
        probe = _Probe(model, block_paths)
        probe.check_causal(block_paths)
        attention, memories = [], []
        found: dict[tuple[str, ...], tuple[str, str]] = {}
        for path in block_paths:
            alike = probe.signature(path)  # blocks built alike are searched once
            if alike not in found:
                inside = probe.attention_within(path)
                memory = f"{path}.{mlp_out}" if mlp_out else probe.memory_within(path, inside)
                found[alike] = inside.removeprefix(path), memory.removeprefix(path)
            attention.append(path + found[alike][0])
            memories.append(path + found[alike][1])
        first = memories[0]
        for path in memories:
            probe.check_memory(path)
        kinds = {probe.signature(block): (block, memory) for block, memory in zip(block_paths, memories, strict=True)}
        adds = [probe.adds_to_residual(block, memory) for block, memory in kinds.values()]
        head = probe.head()
        return Layout(
            blocks=tuple(block_paths),
            attention=tuple(attention),
            mlp_out=tuple(memories),
            in_out=isinstance(model.get_submodule(first), Conv1D),
            embeddings=probe.run_before(block_paths[0]),
            after_blocks=tuple(path for path in probe.run_after(block_paths[-1]) if path != head),
            head=head,
            tied=model.get_submodule(head).weight is probe.embedding(),
            hidden_size=probe.hidden_size,
            key_width=int(probe.inputs[first].shape[-1]),
            adds_to_residual=all(adds),
            blocks_return_tuple=probe.returned_tuple[block_paths[0]],
        )


def _find_blocks(model: PreTrainedModel, given: str | None) -> list[str]:
    lists = {name: part for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) > 0}
    chosen, expected = given, None
    if chosen is None:
        if not lists:
            raise _not_found(f"No list of residual blocks (an nn.ModuleList) was found in {type(model).__name__}.")
        chosen = max(lists, key=lambda name: sum(p.numel() for p in lists[name].parameters()))
        expected = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    if chosen not in lists:
        raise LayoutError(f"There is no list of blocks at {chosen!r}.", f"Lists: {', '.join(lists) or 'none'}.")
    if expected not in (None, len(lists[chosen])):
        raise _not_found(
            f"The largest list of modules, {chosen!r}, has {len(lists[chosen])} entries where the configuration speaks"
            f" of {expected} layers."
        )
    return [f"{chosen}.{index}" for index in range(len(lists[chosen]))]


def _not_found(what: str) -> LayoutError:
    return LayoutError(what, "If you know them, give the paths: find_layout(model, blocks=..., mlp_out=...).")


class _Probe:
    """One forward pass over a few tokens, with everything that every module saw, and questions about it."""

    def __init__(self, model: PreTrainedModel, blocks: Sequence[str]) -> None:
        self.model = model
        self.order: list[str] = []
        self.calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.arguments: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.returned_tuple: dict[str, bool] = {}
        spread = torch.arange(1, _PROBE_LENGTH + 1, device=model.device) * 37
        self.tokens = (spread % self.embedding().shape[0]).unsqueeze(0)
        with ExitStack() as stack:
            for name, module in model.named_modules():
                if name:
                    hook = partial(self._record, name)
                    stack.enter_context(module.register_forward_hook(hook, with_kwargs=True))
            try:
                model(self.tokens, use_cache=False)
            except Exception as error:
                raise LayoutError(
                    f"{type(model).__name__} failed on a forward pass over {_PROBE_LENGTH} tokens: {error}.",
                    "Give a causal language model.",
                ) from error
        for path in blocks:
            if path not in self.outputs:
                raise _not_found(f"The block {path!r} took no part in a forward pass.")
        self.hidden_size = int(self.outputs[blocks[0]].shape[-1])

    def _record(
        self, path: str, _module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: Any
    ) -> None:
        self.order.append(path)
        self.calls[path] = (args, options)
        self.returned_tuple[path] = isinstance(output, tuple)
        for value in (*args, *options.values()):
            if isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2:
                self.arguments[path] = value
                self.inputs[path] = value.clone()  # some families add to their activations in place
                break
        leaving = output[0] if isinstance(output, tuple) else output
        if isinstance(leaving, Tensor):
            self.outputs[path] = leaving.clone()

    def _again(self, path: str, entering: Tensor) -> Tensor:
        """The module's output for another hidden input, all other arguments as they were."""
        (args, options), old = self.calls[path], self.arguments[path]
        swapped = [entering if value is old else value for value in args]
        named = {key: entering if value is old else value for key, value in options.items()}
        return first_tensor(self.model.get_submodule(path)(*swapped, **named))

    def _mixes_positions(self, path: str) -> bool:
        entering, leaving = self.inputs.get(path), self.outputs.get(path)
        if entering is None or leaving is None:
            return False
        if any(states.dim() != 3 or states.shape[1] != _PROBE_LENGTH for states in (entering, leaving)):
            return False
        changed = entering.clone()
        changed[:, 0] += entering.std() * torch.linspace(-1, 1, entering.shape[-1], device=entering.device)
        later = self._again(path, changed)[:, 1:] - leaving[:, 1:]
        return bool(later.abs().max() > 1e-3 * leaving.abs().max())

    def check_causal(self, blocks: Sequence[str]) -> None:
        """Change the last token: what blocks return before it must not move, or a prompt's states hold no answer."""
        changed = self.tokens.clone()
        changed[:, -1] = (changed[:, -1] + 1) % self.embedding().shape[0]
        with capture(self.model, outputs_of=blocks, copies=True) as seen:
            self.model(changed, use_cache=False)
        for path in blocks:
            before, after = by_row(self.outputs[path], 1), by_row(seen.outputs[path], 1)
            rounding = min(64 * torch.finfo(before.dtype).eps, 1e-2) * before.abs().max()
            if bool((after - before)[:, :-1].abs().max() > rounding):
                raise LayoutError(
                    f"{type(self.model).__name__} is not causal: what {path!r} returns for a token changes with the"
                    " tokens that follow.",
                    "Give a causal language model (a decoder).",
                )

    def signature(self, block: str) -> tuple[str, ...]:
        """What runs inside a block, in order, with the kinds of modules."""
        return tuple(
            f"{path.removeprefix(block)}:{type(self.model.get_submodule(path)).__name__}"
            for path in self.order
            if path.startswith(f"{block}.")
        )

    def attention_within(self, block: str) -> str:
        mixing = [path for path in self.order if path.startswith(f"{block}.") and self._mixes_positions(path)]
        if not mixing:
            raise _not_found(
                f"No part of {block!r} carries information between positions, so its attention was not found."
            )
        return max(mixing, key=len)

    def memory_within(self, block: str, attention: str) -> str:
        for path in reversed(self.order):
            outside = path.startswith(f"{block}.") and not f"{path}.".startswith(f"{attention}.")
            weight = getattr(self.model.get_submodule(path), "weight", None) if outside else None
            if isinstance(weight, Tensor) and weight.dim() == 2 and path in self.inputs:
                into, out = self.inputs[path].shape[-1], self.outputs[path].shape[-1]
                if out == self.hidden_size and sorted(weight.shape) == sorted((into, out)):
                    return path
        raise _not_found(
            f"No linear map back to the hidden width {self.hidden_size} was found outside attention in {block!r}"
            " (mixtures of experts and fused MLPs keep none)."
        )

    def check_memory(self, path: str) -> None:
        """Recompute the projection from its input and weight: it must be the linear map that we take it for."""
        try:
            module = self.model.get_submodule(path)
        except AttributeError:
            raise _not_found(f"There is no module {path!r}.") from None
        stored = getattr(module, "weight", None)
        if path not in self.inputs or not isinstance(stored, Tensor):
            raise _not_found(f"{path!r} took no part in a forward pass or has no weight.")
        if stored.dim() != 2:
            raise _not_found(f"The weight of {path!r} is not a matrix.")
        weight = stored if isinstance(module, Conv1D) else stored.T
        keys, output, bias = self.inputs[path], self.outputs[path], getattr(module, "bias", None)
        if keys.shape[-1] != weight.shape[0] or weight.shape[1] != output.shape[-1]:
            raise _not_found(f"The weight of {path!r} does not fit its input and output.")
        if weight.shape[1] != self.hidden_size:
            raise _not_found(f"{path!r} does not return to the hidden width {self.hidden_size}.")
        expected = keys @ weight + (bias if bias is not None else 0)
        if not torch.allclose(expected, output, atol=float(1e-2 * output.abs().max()), rtol=1e-2):
            raise LayoutError(f"{path!r} is not a plain linear map (quantised or wrapped?).", "Load it in float32.")

    def adds_to_residual(self, block: str, memory: str) -> bool:
        nudge = torch.zeros_like(self.outputs[memory])
        nudge[..., -1, :] = self.outputs[memory].std() * torch.linspace(-1, 1, self.hidden_size, device=nudge.device)
        with replace(self.model, memory, lambda output: output + nudge):
            moved = self._again(block, self.inputs[block]) - self.outputs[block]
        if not bool(moved[:, -1].abs().max() > 0):
            raise _not_found(f"Changing what {memory!r} returns does not change its block.")
        return torch.allclose(moved, nudge, atol=float(1e-2 * nudge.abs().max()))

    def embedding(self) -> Tensor:
        weight = getattr(self.model.get_input_embeddings(), "weight", None)
        if not isinstance(weight, Tensor):
            raise LayoutError(f"{type(self.model).__name__} has no input embedding.", "Give a causal language model.")
        return weight

    def head(self) -> str:
        output = self.model.get_output_embeddings()
        head = next((path for path in self.outputs if self.model.get_submodule(path) is output), None)
        if head is None:
            raise LayoutError(f"{type(self.model).__name__} has no output head.", "Give a causal language model.")
        return head

    def run_before(self, block: str) -> tuple[str, ...]:
        first = next(place for place, path in enumerate(self.order) if f"{path}.".startswith(f"{block}."))
        return self._with_parameters(self.order[:first])

    def run_after(self, block: str) -> tuple[str, ...]:
        return self._with_parameters(self.order[self.order.index(block) + 1 :])

    def _with_parameters(self, paths: Sequence[str]) -> tuple[str, ...]:
        return tuple(
            path for path in dict.fromkeys(paths) if list(self.model.get_submodule(path).parameters(recurse=False))
        )
