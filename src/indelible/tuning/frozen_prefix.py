"""Outputs of the frozen leading layers, kept for rows that come again.

Where a run trains nothing up to some layer, what that layer returns for a row is the same in every epoch and at every
look at the held-out figures. It is computed once per row and given to the layers above from then on: the model's own
forward still runs, and makes masks and positions, but the frozen layers return what was kept (``trace.resume_from``).

This is exact in meaning, and all that differs is rounding: a row's states are those of a batch of another width. They
are known by the row's tokens and the autocast that they were computed under. Whatever is not plainly a pass over whole
rows goes by untouched: generation, attention caches, positions given from outside, rows that do not begin at the first
position, masks with holes, batches so wide that a rotary embedding turns otherwise. So do training passes where
anything is random in the frozen layers (dropout), and all passes while a hook looks on or acts below the trained
layers, as that of an edit that stands beside a memory. Models whose upper layers read more of the lower ones than what
the last of them returns (keys that layers share) are found out by trying, before anything is reused.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
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

_BY_LONGEST_ROW = ("dynamic", "longrope")
"""Kinds of rotary embedding that turn every row of a batch by its longest one, once that is past a bound."""

_TRIED_LENGTH = 8

_Key = tuple[torch.dtype | None, bytes]
"""The type that autocast computes in, and a row's tokens."""


@dataclass(frozen=True)
class _Row:
    """Where the tokens of one row of a batch end, and how its states are known."""

    end: int
    key: _Key


@contextmanager
def frozen_prefix(model: PreTrainedModel, frozen: Collection[str], budget: int = REUSE_BYTES) -> Iterator[FrozenPrefix]:
    """Passes through the model inside the block reuse what its frozen leading layers return, once ``begin`` was called.

    Where a value of what is frozen changes in place or a module is put in another's place, what was kept is dropped.

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
        self._blocks: list[nn.Module] = []
        self._stamp: tuple[tuple[int, int, int], ...] = ()
        self._widest = _widest(model)
        self._device = model.device
        self._resumed = ExitStack()

    def begin(self, *, repeated: bool) -> None:
        """Find out which layers are frozen, and reuse what they return from now on.

        Args:
            repeated: whether training comes back to its rows; if not, only those of passes in evaluation mode are kept.
        """
        if self.layout is None:
            return
        blocks = [self.model.get_submodule(path) for path in self.layout.blocks]
        self.layers = next((layer for layer, block in enumerate(blocks) if _trains(block)), len(blocks))
        self._blocks = blocks[: self.layers]
        if self.layers and (_trained(self._below()) or not self._holds()):
            self.layers = 0
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
        self._full, self._random = False, None

    def before_pass(self, _model: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Forward pre-hook: have the frozen layers return the rows' states, where that is possible."""
        if not self.layers or self._set_aside or args or not _is_plain(options) or torch.compiler.is_compiling():
            return
        ids, mask = options["input_ids"], options.get("attention_mask")
        below = self._below()
        if self._is_replaced() or (torch.is_grad_enabled() and _trained(below)):
            self.layers = 0  # they are another's or trained after all, and nothing that is kept holds any longer
            self.forget()
            return
        if ids.shape[1] >= self._widest or self._is_watched(below):
            return
        self._drop_stale(below)
        with torch.no_grad():
            rows = _rows(ids, mask, self.model.device.type)
            if rows is None or (self._in_training(below) and self._draws(ids, mask, rows[0])):
                return
            states = self._states(ids, mask, rows, keeping=self._repeated or not self._in_training(below))
        if states is not None:
            assert self.layout is not None
            as_tuple = self.layout.blocks_return_tuple
            resumed = resume_from(self.model, self.layout.blocks, self.layers, states, as_tuple=as_tuple)
            self._resumed.enter_context(resumed)

    def after_pass(self, _model: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        """Forward hook, also after an error: the frozen layers are themselves again."""
        self._resumed.close()

    def _below(self) -> list[nn.Module]:
        """All modules that may act before the first trained layer does: those of which it is not plain that they come
        later."""
        assert self.layout is not None
        later = (*self.layout.blocks[self.layers :], *self.layout.after_blocks, self.layout.head)
        not_entered = {self.model.get_submodule(path) for path in later}
        return [module for _, module in self.model.named_modules(memo=not_entered)]

    def _is_replaced(self) -> bool:
        """Whether another module stands in a frozen block's place, such as one that spreads it over processes."""
        assert self.layout is not None
        paths = self.layout.blocks[: self.layers]
        return any(self.model.get_submodule(path) is not block for path, block in zip(paths, self._blocks, strict=True))

    def _in_training(self, below: Sequence[nn.Module]) -> bool:
        return any(module.training for module in below)

    def _is_watched(self, below: Sequence[nn.Module]) -> bool:
        """Whether a hook looks on or acts there, or may change what the model is given after ours."""
        own = 1
        return len(self.model._forward_pre_hooks) > own or any(
            module._forward_hooks or module._forward_pre_hooks for module in below if module is not self.model
        )

    def _drop_stale(self, below: Sequence[nn.Module]) -> None:
        """Let go of what was computed with other values."""
        stamp = tuple((id(one), one.data_ptr(), one._version) for one in _parameters(below))
        if stamp != self._stamp:
            self.forget()
            self._stamp = stamp

    def _holds(self) -> bool:
        """Whether the layers above say the same on states that are handed to them, zeros at padding, as in a whole
        pass; tried on two rows."""
        assert self.layout is not None
        last, as_tuple = (*self.layout.blocks, *self.layout.after_blocks)[-1], self.layout.blocks_return_tuple
        embedding: Any = self.model.get_input_embeddings()
        ids = torch.arange(1, 2 * _TRIED_LENGTH + 1, device=self._device).view(2, -1) * 37 % len(embedding.weight)
        mask = torch.ones_like(ids)
        mask[1, _TRIED_LENGTH // 2 :] = 0

        def said() -> Tensor:
            with capture(self.model, outputs_of=[last], stop_after=last) as seen:
                self.model(input_ids=ids, attention_mask=mask, use_cache=False)
            return by_row(seen.outputs[last], len(ids)).cpu()[mask.bool().cpu()]

        try:
            with self.aside(), torch.no_grad(), kept_random_state(), evaluation_mode(self.model):
                whole, states = said(), self._computed(ids, mask)
                assert states is not None
                states = states * mask[..., None].to(states.device)
                with resume_from(self.model, self.layout.blocks, self.layers, states, as_tuple=as_tuple):
                    resumed = said()
        except Exception:  # whatever it is, a model that cannot do this is trained without reuse
            return False
        rounding = 64 * torch.finfo(whole.dtype).eps * whole.abs().max()
        return bool((resumed - whole).abs().max() <= rounding)

    def _draws(self, ids: Tensor, mask: Tensor | None, row: _Row) -> bool:
        """Whether anything is random in the frozen layers in training mode; tried once, on a row."""
        if self._random is None:
            given = ids[:1, : row.end], None if mask is None else mask[:1, : row.end]
            with kept_random_state():
                before = _random_states(self._device)
                in_training = self._computed(*given, evaluating=False)
                undrawn = all(map(torch.equal, _random_states(self._device), before))
            # On devices whose state is not looked at, a draw is seen by what it does.
            computed = self._computed(*given) if undrawn else None
            self._random = in_training is None or computed is None or not torch.equal(in_training, computed)
        return self._random

    def _states(self, ids: Tensor, mask: Tensor | None, rows: list[_Row], *, keeping: bool) -> Tensor | None:
        """What the last frozen layer returns for a batch, zeros at its padding; None where nothing is gained."""
        keeping = keeping and not self._full
        missing = [place for place, row in enumerate(rows) if row.key not in self._kept]
        if len(missing) == len(rows) and not keeping:
            return None
        fresh: dict[int, Tensor] = {}
        if missing:
            width = max(rows[place].end for place in missing)
            computed = self._computed(ids[missing, :width], None if mask is None else mask[missing, :width])
            if computed is None:
                return None
            self._device = computed.device
            fresh = {place: states[: rows[place].end] for place, states in zip(missing, computed, strict=True)}
        found = [fresh[place] if place in fresh else self._kept[row.key] for place, row in enumerate(rows)]
        states = torch.zeros(*ids.shape, found[0].shape[-1], dtype=found[0].dtype, device=self._device)
        for place, row in enumerate(rows):
            states[place, : row.end] = found[place]
        if keeping:
            for place in missing:
                self._keep(rows[place], fresh[place])
        self.reused += len(rows) - len(missing)
        return states

    def _computed(self, ids: Tensor, mask: Tensor | None, *, evaluating: bool = True) -> Tensor | None:
        """What the last frozen layer returns, ``(rows, tokens, width)``; nothing above it runs. None where it was left
        out, as some families do by chance in training."""
        assert self.layout is not None
        last = self.layout.blocks[self.layers - 1]
        mode = evaluation_mode(self.model) if evaluating else nullcontext()
        with self.aside(), mode, capture(self.model, outputs_of=[last], stop_after=last) as seen:
            self.model(input_ids=ids, attention_mask=mask, use_cache=False)
        return by_row(seen.outputs[last], len(ids)) if last in seen.outputs else None

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


def _parameters(modules: Sequence[nn.Module]) -> Iterator[nn.Parameter]:
    """The modules' own, without those of modules inside them."""
    return (parameter for module in modules for parameter in module.parameters(recurse=False))


def _trained(modules: Sequence[nn.Module]) -> bool:
    return any(parameter.requires_grad for parameter in _parameters(modules))


def _random_states(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _widest(model: PreTrainedModel) -> float:
    """Width from which on the states of a row may hang on that of its batch."""
    config = model.config.get_text_config()
    given: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    kinds = [given, *(value for value in given.values() if isinstance(value, Mapping))]
    if not any(kind.get("rope_type") in _BY_LONGEST_ROW for kind in kinds):
        return math.inf
    named = ("original_max_position_embeddings", "max_position_embeddings")
    bounds = [*(kind.get(named[0]) for kind in kinds), *(getattr(config, name, None) for name in named)]
    return min((bound for bound in bounds if bound), default=0)


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


def _rows(ids: Tensor, mask: Tensor | None, device: str) -> list[_Row] | None:
    """The rows of a batch; None if one of them is not just tokens from the first position on, and padding."""
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    ids = ids.long().cpu()
    mask = torch.ones_like(ids) if mask is None else mask.cpu()
    lengths = mask.bool().sum(1)
    filled = torch.arange(ids.shape[1]) < lengths[:, None]
    # Compared as numbers: masks that count the texts of a packed row are more than true and false.
    if not bool(lengths.all()) or not torch.equal(filled.to(mask.dtype), mask):
        return None
    return [_Row(end, (precision, row[:end].numpy().tobytes())) for row, end in zip(ids, lengths.tolist(), strict=True)]
