"""Outputs of the frozen leading layers, kept for rows that come again.

Where a run trains nothing up to some layer, what that layer returns for a row is the same in every epoch and at every
look at the held-out figures. It is computed once per row and given to the layers above from then on: the model's own
forward still runs, and makes masks and positions, but the frozen layers return what was kept (``trace.resume_from``).

This is exact in meaning, and all that differs is rounding: a row's states are those of a batch of another width. They
are known by the row's tokens, the position that it starts at, and the autocast that they were computed under. Whatever
is not plainly a pass over whole rows goes by untouched: generation, attention caches, positions given from outside,
masks with holes. So do training passes where anything is random in the frozen layers (dropout), and all passes while a
hook looks on or acts there, as that of an edit that stands beside a memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from indelible.errors import LayoutError
from indelible.models.layout import Layout, find_layout
from indelible.models.trace import by_row, capture, evaluation_mode, resume_from
from indelible.tuning.randomness import kept_random_state

REUSE_BYTES = 2**30
"""Memory for what is kept, on the processor."""

# All else that a forward pass may be given reaches the layers, or might.
_HARMLESS = frozenset(
    {
        *("input_ids", "attention_mask", "use_cache"),
        *("labels", "shift_labels", "logits_to_keep", "num_items_in_batch", "fused_lm_head"),
    }
)

_Key = tuple[torch.dtype | None, int, bytes]
"""The type that autocast computes in, the position of a row's first token, and its tokens."""


@dataclass(frozen=True)
class _Row:
    """Where the tokens of one row of a batch stand, and how its states are known."""

    start: int
    end: int
    key: _Key


@contextmanager
def frozen_prefix(model: PreTrainedModel, frozen: Collection[str], budget: int = REUSE_BYTES) -> Iterator[FrozenPrefix]:
    """Passes through the model inside the block reuse what its frozen leading layers return, once ``begin`` was called.

    What is frozen must keep its values inside the block.

    Args:
        model: without adapters; they may come later.
        frozen: names of parameters that are about to be frozen, beside those that require no gradient.
        budget: bytes that may be kept; what no longer fits is computed again each time. 0 turns reuse off.
    """
    layout = _layout(model, frozen) if budget > 0 else None
    prefix = FrozenPrefix(model, layout, budget)
    if layout is None:
        yield prefix
        return
    handles = [
        model.register_forward_pre_hook(prefix.before_pass, with_kwargs=True),
        model.register_forward_hook(prefix.after_pass, always_call=True),
    ]
    try:
        yield prefix
    finally:
        for handle in handles:
            handle.remove()
        prefix.forget()


class FrozenPrefix:
    """What the frozen leading layers of a model returned, by row. Made by ``frozen_prefix``.

    Args:
        model: whose layers they are.
        layout: the model's; None where nothing can be reused.
        budget: bytes that may be kept.

    Attributes:
        layers: leading layers whose outputs may be reused; 0 before ``begin``.
        reused: rows that did not have to go through them again.
        kept_bytes: memory that is used.
    """

    def __init__(self, model: PreTrainedModel, layout: Layout | None, budget: int) -> None:
        self.model, self.layout, self.budget = model, layout, budget
        self.layers = self.reused = self.kept_bytes = 0
        self._kept: dict[_Key, Tensor] = {}
        self._full = self._repeated = self._set_aside = False
        self._random: bool | None = None
        self._modules: list[nn.Module] = []
        self._parameters: list[nn.Parameter] = []
        self._device = model.device
        self._resumed = ExitStack()

    def begin(self, *, repeated: bool) -> None:
        """Find out which layers are frozen, and reuse what they return from now on.

        Args:
            repeated: whether training comes back to its rows; if not, only those of passes in evaluation mode are kept.
        """
        if self.layout is None:
            return
        parts = [self.model.get_submodule(path) for path in self.layout.embeddings]
        blocks = [self.model.get_submodule(path) for path in self.layout.blocks]
        if not any(map(_trains, parts)):
            self.layers = next((layer for layer, block in enumerate(blocks) if _trains(block)), len(blocks))
        self._modules = [module for part in (*parts, *blocks[: self.layers]) for module in part.modules()]
        self._parameters = [parameter for module in self._modules for parameter in module.parameters(recurse=False)]
        self._repeated = repeated

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Passes inside the block neither use nor keep anything."""
        earlier, self._set_aside = self._set_aside, True
        try:
            yield
        finally:
            self._set_aside = earlier

    def forget(self) -> None:
        """Let go of all that is kept."""
        self._resumed.close()
        self._kept.clear()
        self.kept_bytes = 0

    def before_pass(self, _model: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Forward pre-hook: have the frozen layers return the rows' states, where that is possible."""
        if not self.layers or self._set_aside or args or not _is_plain(options) or torch.compiler.is_compiling():
            return
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self._parameters):
            self.layers = 0  # someone trains them after all, and nothing that is kept holds any longer
            self.forget()
            return
        ids, mask = options["input_ids"], options.get("attention_mask")
        with torch.no_grad():
            rows = None if self._is_watched() else _rows(ids, mask)
            if rows is None or (self._in_training() and self._draws(ids, mask, rows[0])):
                return
            states = self._states(ids, mask, rows)
        if states is not None:
            assert self.layout is not None
            as_tuple = self.layout.blocks_return_tuple
            resumed = resume_from(self.model, self.layout.blocks, self.layers, states, as_tuple=as_tuple)
            self._resumed.enter_context(resumed)

    def after_pass(self, _model: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        """Forward hook, also after an error: the frozen layers are themselves again."""
        self._resumed.close()

    def _in_training(self) -> bool:
        return self.model.training or any(module.training for module in self._modules)

    def _is_watched(self) -> bool:
        """Whether a hook looks on or acts in the frozen layers, or may change what the model is given after ours."""
        own = 1
        return len(self.model._forward_pre_hooks) > own or any(
            module._forward_hooks or module._forward_pre_hooks for module in self._modules
        )

    def _draws(self, ids: Tensor, mask: Tensor | None, row: _Row) -> bool:
        """Whether anything is random in the frozen layers in training mode; tried once, on a row."""
        if self._random is None:
            given = ids[:1, : row.end], None if mask is None else mask[:1, : row.end]
            with kept_random_state():
                state = torch.get_rng_state()
                in_training = self._computed(*given, evaluating=False)[:, row.start :]
                undrawn = torch.equal(torch.get_rng_state(), state)
            # On other devices than the processor a draw is seen by what it does.
            self._random = not (undrawn and torch.equal(in_training, self._computed(*given)[:, row.start :]))
        return self._random

    def _states(self, ids: Tensor, mask: Tensor | None, rows: list[_Row]) -> Tensor | None:
        """What the last frozen layer returns for a batch, zeros at its padding; None where nothing is gained."""
        missing = [place for place, row in enumerate(rows) if row.key not in self._kept]
        keeping = not self._full and (self._repeated or not self._in_training())
        if len(missing) == len(rows) and not keeping:
            return None
        fresh: dict[int, Tensor] = {}
        if missing:
            width = max(rows[place].end for place in missing)
            computed = self._computed(ids[missing, :width], None if mask is None else mask[missing, :width])
            self._device = computed.device
            fresh = {
                place: states[rows[place].start : rows[place].end]
                for place, states in zip(missing, computed, strict=True)
            }
        found = [fresh[place] if place in fresh else self._kept[row.key] for place, row in enumerate(rows)]
        states = torch.zeros(*ids.shape, found[0].shape[-1], dtype=found[0].dtype, device=self._device)
        for place, row in enumerate(rows):
            states[place, row.start : row.end] = found[place]
        if keeping:
            for place in missing:
                self._keep(rows[place], fresh[place])
        self.reused += len(rows) - len(missing)
        return states

    def _computed(self, ids: Tensor, mask: Tensor | None, *, evaluating: bool = True) -> Tensor:
        """What the last frozen layer returns, ``(rows, tokens, width)``; nothing above it runs."""
        assert self.layout is not None
        last = self.layout.blocks[self.layers - 1]
        mode = evaluation_mode(self.model) if evaluating else nullcontext()
        with self.aside(), mode, capture(self.model, outputs_of=[last], stop_after=last) as seen:
            self.model(input_ids=ids, attention_mask=mask, use_cache=False)
        return by_row(seen.outputs[last], len(ids))

    def _keep(self, row: _Row, states: Tensor) -> None:
        """Keep a row's states, unless they do not fit."""
        size = states.nbytes + len(row.key[-1])
        if row.key in self._kept:
            return
        if self.kept_bytes + size > self.budget:
            self._full = True
            return
        self._kept[row.key] = states.to("cpu", copy=True)
        self.kept_bytes += size


def _layout(model: PreTrainedModel, frozen: Collection[str]) -> Layout | None:
    """The model's layout; None where it has none, or its input embedding is not going to be frozen."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    embedding = model.get_input_embeddings()
    if embedding is None or any(
        parameter.requires_grad and names[id(parameter)] not in frozen for parameter in embedding.parameters()
    ):
        return None
    try:
        return find_layout(model)
    except LayoutError:
        return None


def _trains(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters())


def _is_plain(options: Mapping[str, Any]) -> bool:
    """Whether a pass reads whole rows of tokens from their beginning, without an attention cache."""
    ids, mask = options.get("input_ids"), options.get("attention_mask")
    return (
        {name for name, value in options.items() if value is not None} <= _HARMLESS
        and options.get("use_cache") is False
        and isinstance(ids, Tensor)
        and ids.dim() == 2
        and (mask is None or (isinstance(mask, Tensor) and mask.shape == ids.shape))
    )


def _rows(ids: Tensor, mask: Tensor | None) -> list[_Row] | None:
    """The rows of a batch; None if the tokens of one do not stand together."""
    device = ids.device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    ids = ids.long().cpu()
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool().cpu()
    starts, lengths = real.int().argmax(1), real.sum(1)
    places = torch.arange(ids.shape[1])
    between = (places >= starts[:, None]) & (places < (starts + lengths)[:, None])
    if not bool(lengths.all()) or not torch.equal(between, real):
        return None
    ends = (starts + lengths).tolist()
    return [
        _Row(start, end, (precision, start, row[start:end].numpy().tobytes()))
        for row, start, end in zip(ids, starts.tolist(), ends, strict=True)
    ]
