"""Where a model keeps what editing needs, found in its module tree and proved by traced forward passes (probe.py).

No family is named here. The residual blocks are the largest list of modules that takes part in a pass; attention is the
smallest part of a block without which nothing gets from one position to a later one; the memory is the linear map whose
output is all that the block's MLP adds to the residual stream. Each claim is checked on real activations before anyone
relies on it. Where a block has no such map (mixtures of experts, gated mixers), it says why, and edits are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from indelible.errors import LayoutError
from indelible.models.probe import Probe, not_found
from indelible.models.trace import evaluating


@dataclass(frozen=True)
class Memory:
    """The output projection of a block's MLP, the linear map that editors change.

    Attributes:
        path: of the module.
        in_out: whether its weight is stored (in, out), as Conv1D does, rather than (out, in).
        key_width: its input width.
        adds_to_residual: whether what it returns is added to the residual stream as it is (no norm between).
    """

    path: str
    in_out: bool
    key_width: int
    adds_to_residual: bool

    @property
    def weight(self) -> str:
        """The parameter's name."""
        return f"{self.path}.weight"


@dataclass(frozen=True)
class Layout:
    """The parts of a causal language model, as module paths in order of the layers.

    Attributes:
        blocks: residual blocks, each with its ``attention``.
        memories: of each block, or why it has none.
        embeddings: every module with parameters that runs before the first block.
        after_blocks: every module with parameters that runs after the last block, but for the head (the final norm).
        head: the output projection onto the vocabulary; ``tied`` where it shares its weight with the input embedding.
        hidden_size: width of the residual stream.
        blocks_return_tuple: length of the tuple that blocks return; 0 where they return the states themselves.
        resumes: whether a pass can begin at any block, with all below it skipped (see ``trace.resume_from``).
    """

    blocks: tuple[str, ...]
    attention: tuple[str, ...]
    memories: tuple[Memory | str, ...]
    embeddings: tuple[str, ...]
    after_blocks: tuple[str, ...]
    head: str
    tied: bool
    hidden_size: int
    blocks_return_tuple: int
    resumes: bool

    @property
    def n_layers(self) -> int:
        """Number of residual blocks."""
        return len(self.blocks)

    @property
    def known_memories(self) -> dict[int, Memory]:
        """The memories by layer, of those layers that have one."""
        return {layer: one for layer, one in enumerate(self.memories) if isinstance(one, Memory)}

    def memory(self, layer: int) -> Memory:
        """A layer's memory.

        Raises:
            LayoutError: if it has none.
        """
        found = self.memories[layer]
        if isinstance(found, Memory):
            return found
        have = ", ".join(map(str, self.known_memories))
        raise LayoutError(
            f"Layer {layer} has no one linear map to edit: {found}.",
            (f"Edit layers that have one ({have}), or give" if have else "Give")
            + " the path within a block of the map that you mean: layout=find_layout(model, mlp_out=...).",
        )

    @property
    def mlp_out(self) -> tuple[str, ...]:
        """Path of each layer's memory; raises LayoutError where a layer has none."""
        return tuple(self.memory(layer).path for layer in range(self.n_layers))

    @property
    def mlp_out_weight(self) -> tuple[str, ...]:
        """Parameter name of each layer's memory; raises as ``mlp_out``."""
        return tuple(self.memory(layer).weight for layer in range(self.n_layers))

    @property
    def key_width(self) -> int:
        """The largest of any memory; 0 where there is none."""
        return max((one.key_width for one in self.known_memories.values()), default=0)

    @property
    def adds_to_residual(self) -> bool:
        """Whether what a memory returns is added to the residual stream as it is, in every kind of block."""
        return all(one.adds_to_residual for one in self.known_memories.values())

    def layer_of(self, parameter: str) -> int | None:
        """The layer whose block holds the parameter; None for embeddings, final norm and head."""
        return next((layer for layer, block in enumerate(self.blocks) if parameter.startswith(f"{block}.")), None)


def find_layout(model: PreTrainedModel, *, blocks: str | None = None, mlp_out: str | None = None) -> Layout:
    """Find and prove the layout of a causal language model, on any device; the model is left as it was.

    Args:
        blocks: path of the list of residual blocks, where it cannot be found.
        mlp_out: path within a block of the linear map to take for the memory, in all blocks that have it.

    Raises:
        LayoutError: saying what was looked for and not found.
    """
    with evaluating(model), torch.no_grad():
        probe = Probe(model)
        paths = _find_blocks(probe, blocks)
        hidden = _hidden_size(probe, paths[0])
        probe.check_causal(paths)
        given = {path for path in paths if mlp_out and f"{path}.{mlp_out}" in dict(model.named_modules())}
        if mlp_out and not given:
            raise not_found(f"There is no module {f'{paths[0]}.{mlp_out}'!r}.")
        mixing = _mixing(probe, paths)
        attention: list[str] = []
        memories: list[Memory | str] = []
        found: dict[tuple[str, ...], tuple[str, str, str, bool]] = {}
        for path in paths:
            alike = probe.signature(path)  # blocks built alike are searched once
            if alike not in found:
                inside = probe.attention_within(mixing[alike])
                memory, reason = f"{path}.{mlp_out}", ""
                if path not in given:
                    memory, reason = probe.memory_within(path, mixing[alike], hidden)
                if memory:
                    probe.check_memory(memory, hidden)
                adds = bool(memory) and probe.adds_to_residual(path, memory)
                found[alike] = inside.removeprefix(path), memory.removeprefix(path), reason, adds
            inside, memory, reason, adds = found[alike]
            attention.append(path + inside)
            memories.append(_memory(probe, path + memory, hidden, adds) if memory else reason)
        head = probe.head()
        return Layout(
            blocks=tuple(paths),
            attention=tuple(attention),
            memories=tuple(memories),
            embeddings=probe.run_before(paths[0]),
            after_blocks=tuple(path for path in probe.run_after(paths[-1]) if path != head),
            head=head,
            tied=model.get_submodule(head).weight is probe.embedding(),
            hidden_size=hidden,
            blocks_return_tuple=probe.returned[paths[0]],
            resumes=probe.resumes(paths),
        )


def _mixing(probe: Probe, blocks: Sequence[str]) -> dict[tuple[str, ...], list[str]]:
    """By signature, the parts of the first such block that carry information between tokens.

    A block that attends to another's keys and values carries none of its own: the parts that do in others are its.
    """
    firsts = {probe.signature(block): block for block in reversed(blocks)}
    found = {kind: probe.mixing_within(block) for kind, block in firsts.items()}
    names = {part.removeprefix(firsts[kind]) for kind, parts in found.items() for part in parts}
    for kind, block in firsts.items():
        found[kind] = found[kind] or [f"{block}{name}" for name in sorted(names) if f"{block}{name}" in probe.outputs]
        if not found[kind]:
            raise not_found(
                f"No part of {block!r} carries information between positions, so its attention was not found."
            )
    return found


def _memory(probe: Probe, path: str, hidden_size: int, adds: bool) -> Memory:
    probe.check_memory(path, hidden_size)
    in_out = isinstance(probe.model.get_submodule(path), Conv1D)
    return Memory(path, in_out, int(probe.inputs[path].shape[-1]), adds)


def _hidden_size(probe: Probe, block: str) -> int:
    returned = probe.outputs[block]
    width, tokens = int(returned.shape[-1]), probe.tokens.shape[1]
    expected = getattr(probe.model.config.get_text_config(), "hidden_size", width)
    if width != expected or returned[..., 0].numel() != tokens:
        raise LayoutError(
            f"{type(probe.model).__name__} has no one residual stream: for {tokens} tokens of width {expected},"
            f" {block!r} returns the shape {tuple(returned.shape)} (several streams side by side).",
            "Give a model whose blocks hand on one state per token.",
        )
    return width


def _find_blocks(probe: Probe, given: str | None) -> list[str]:
    model = probe.model
    lists = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) > 0
    }
    chosen, expected = given, None
    if chosen is None:
        if not lists:
            raise not_found(f"No list of residual blocks (an nn.ModuleList) was found in {type(model).__name__}.")
        used = [name for name, parts in lists.items() if all(f"{name}.{i}" in probe.outputs for i in range(len(parts)))]
        chosen = max(used or lists, key=lambda name: sum(p.numel() for p in lists[name].parameters()))
        expected = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    if chosen not in lists:
        raise LayoutError(f"There is no list of blocks at {chosen!r}.", f"Lists: {', '.join(lists) or 'none'}.")
    if expected not in (None, len(lists[chosen])):
        raise not_found(
            f"The largest list of modules, {chosen!r}, has {len(lists[chosen])} entries where the configuration speaks"
            f" of {expected} layers."
        )
    paths = [f"{chosen}.{index}" for index in range(len(lists[chosen]))]
    for path in paths:
        if path not in probe.outputs:
            raise not_found(f"The block {path!r} took no part in a forward pass.")
    return paths
