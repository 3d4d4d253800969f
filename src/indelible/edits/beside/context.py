"""Tokens that are read before every text: an edit that is neither in the weights nor beside them, but in the context.

Hooks on the model's trunk (the module that runs the blocks one after another) put the tokens before any text that does
not come with an attention cache, right where the text begins: after its padding and after what the tokenizer puts
before every text (BOS). The states of the added tokens are cut off again before the head, so that logits, labels and
losses are of the text alone. What goes on from a cache that was begun so has masks and positions shifted past the
context; what goes on from another cache is left as it is.

Where nothing stands before the texts, the context is the same in every row: it is run once, and its attention keys and
values are repeated for the rows. Elsewhere it runs with each row. The model computes the same either way.

Shape suffixes: b rows of a batch, t tokens of a text, c tokens of the context, l tokens read in all.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import DynamicCache, PreTrainedModel

from indelible.edits.beside.hook import Adapter, Presence
from indelible.edits.deltas.delta import EDITS
from indelible.errors import EditError, FingerprintError

# Set on a cache whose text began behind a context; copies of the cache carry it along.
_BEGUN = "indelible_context"
# What a trunk has to be asked for if its last states are all that has to be put together.
_OUTPUTS = {"output_hidden_states": False, "output_attentions": False, "return_dict": True}


@EDITS.register("context")
@dataclass(frozen=True)
class Context(Adapter):
    """Tokens that one particular model reads before every text.

    Attributes:
        tokens_c: the context, without what the tokenizer puts before every text.
        opening: what the tokenizer puts before every text (BOS), mostly one token or none. A text that begins with it
            has the context behind it; one that does not begins with the context.
        manifest: see ``Edit``; beside that ``context``, the tokens as text, and ``trunk``, the path of the trunk.
    """

    kind: ClassVar[str] = "context"
    tokens_c: Tensor
    opening: Tensor
    manifest: Mapping[str, Any]

    @property
    def parameters(self) -> tuple[str, ...]:
        """None: every weight takes part, and none is changed."""
        return ()

    def place(self, model: PreTrainedModel) -> nn.Module:
        """The trunk.

        Raises:
            FingerprintError: if the model has no such module, or too small a vocabulary.
            EditError: if nothing can be put before its texts.
        """
        path = self.manifest["trunk"]
        try:
            trunk = model.get_submodule(path)
        except AttributeError:
            raise FingerprintError(
                f"This model has no module {path!r}, before which the context stands.", "Give a model of the same kind."
            ) from None
        embeddings: Any = model.get_input_embeddings()
        vocabulary = len(embeddings.weight)
        largest = max([*self.tokens_c.tolist(), *self.opening.tolist()], default=0)
        if largest >= vocabulary:
            raise FingerprintError(
                f"The context holds token {largest}; this model's vocabulary has {vocabulary}.",
                "Give a model of the same kind.",
            )
        taken = "input_ids" in inspect.signature(type(trunk).forward).parameters
        if trunk is model or not taken or not hasattr(trunk, "config"):
            raise EditError(
                f"Nothing can be put before a text of {type(model).__name__}: {path or 'the model'!r} runs its blocks"
                " and is no trunk that takes input_ids.",
                "Use another editor for this model.",
            )
        return trunk

    def presence(self, module: nn.Module) -> Prefix:
        """See ``Adapter``."""
        return Prefix(self, module)

    def continues(self, other: Adapter) -> bool:
        """Whether every fact of the other is a fact of this one."""
        mine = {fact["id"] for fact in self.manifest["facts"]}
        return isinstance(other, Context) and {fact["id"] for fact in other.manifest["facts"]} <= mine

    def tensors(self) -> dict[str, Tensor]:
        """The tokens."""
        return {"tokens": self.tokens_c, "opening": self.opening}

    @classmethod
    def from_saved(cls, manifest: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Context:
        """See ``Edit``."""
        if tensors.keys() != {"tokens", "opening"} or manifest["parameters"]:
            raise ValueError("there are tensors or parameters that a context does not have")
        if any(tensor.dim() != 1 or tensor.dtype != torch.long for tensor in tensors.values()):
            raise ValueError("tokens are whole numbers, one after another")
        if not isinstance(manifest["facts"], list) or not isinstance(manifest["trunk"], str):
            raise ValueError("facts or trunk are not what they should be")
        if not isinstance(manifest["statements"], dict) or not isinstance(manifest["context"], str):
            raise ValueError("statements or context are not what they should be")
        return cls(tensors["tokens"], tensors["opening"], manifest)


@dataclass(frozen=True)
class _Read:
    """What the hook behind the trunk has to know of a text that was begun.

    Attributes:
        added: positions to cut off at the front.
        total: positions that were read.
        opening: states of the opening, to be put before those of the text where the text was read without it.
        keep_cache: whether the caller asked for the cache.
    """

    added: int
    total: int
    opening: Tensor | None = None
    keep_cache: bool = True


class Prefix(Presence):
    """Puts the context before texts and takes its states away again."""

    def __init__(self, adapter: Context, module: nn.Module) -> None:
        self.tokens_c, self.opening = adapter.tokens_c, adapter.opening
        self.names = tuple(inspect.signature(type(module).forward).parameters)[1:]
        self.read: _Read | None = None
        self.begun = False  # whether any text has come through here
        super().__init__(adapter, module)

    def enter(self, module: nn.Module) -> list[RemovableHandle]:
        before = module.register_forward_pre_hook(self.before, with_kwargs=True)
        return [before, module.register_forward_hook(self)]

    def before(
        self, trunk: Any, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Put the context before a text, or shift what goes on from one that was begun so."""
        self.read = None
        if not self.acts(trunk):
            return None
        named = {**dict(zip(self.names, args, strict=False)), **options}
        named.pop("cache_position", None)  # counted by the trunk itself where it is not given
        cache = named.get("past_key_values")
        past = 0 if cache is None else cache.get_seq_length()
        begun = getattr(cache, _BEGUN, None)
        if past and begun is None:
            return None  # a text that began without the context
        context = tuple(self.tokens_c.tolist())
        if past and begun != context:
            raise EditError("This attention cache was begun under another context.", "Begin the text again.")
        tokens_bt = self._check(trunk, named, past)
        self.tokens_c, self.opening = self.tokens_c.to(tokens_bt.device), self.opening.to(tokens_bt.device)
        if past:
            return (), self._shifted(named)
        self.begun = True
        if cache is None and _wants_cache(trunk, named):
            cache = named["past_key_values"] = DynamicCache(config=trunk.config)
        if cache is not None:
            setattr(cache, _BEGUN, context)
        return (), self._once(trunk, named) if self._alike(trunk, named) else self._inserted(named)

    def __call__(self, module: nn.Module, *seen: Any) -> Any:
        """Cut the context's states off."""
        read, self.read = self.read, None
        if read is None:
            return None
        output = seen[-1]
        if read.opening is not None:
            output.last_hidden_state = torch.cat([read.opening, output.last_hidden_state], dim=1)
            if not read.keep_cache:
                output.past_key_values = None
            return output
        if isinstance(output, tuple):
            return _cut(output, read)
        for name in ("last_hidden_state", "hidden_states", "attentions"):
            if output.get(name) is not None:
                output[name] = _cut(output[name], read)
        return output

    def _check(self, trunk: Any, named: Mapping[str, Any], past: int) -> Tensor:
        """The text's tokens, if the context can be put before them."""
        tokens_bt, mask = named.get("input_ids"), named.get("attention_mask")
        if tokens_bt is None or named.get("token_type_ids") is not None:
            raise EditError("A context can be put before input_ids only.", "Give no embeddings or token types.")
        cache, positions = named.get("past_key_values"), named.get("position_ids")
        plain = mask is None or (isinstance(mask, Tensor) and mask.dim() == 2)
        if not plain or (positions is not None and positions.dim() != 2) or getattr(cache, "is_compileable", False):
            raise EditError(
                "A context needs a mask and positions of one row per text, and an attention cache that grows.",
                "Leave them to the model (no static cache).",
            )
        added = 0 if past else len(self.tokens_c)
        length = past + added + tokens_bt.shape[1]
        if past and mask is not None and mask.shape[1] + len(self.tokens_c) != length:
            raise EditError(
                f"The attention mask has {mask.shape[1]} columns; text and cache, without the context's"
                f" {len(self.tokens_c)} tokens, have {length - len(self.tokens_c)}.",
                "Give a mask for the whole text, or begin the text again.",
            )
        longest = getattr(trunk.config, "max_position_embeddings", None)
        if longest is not None and length > longest:
            raise EditError(
                f"The context's {len(self.tokens_c)} tokens and the text's {length - len(self.tokens_c)} are more than"
                f" the {longest} that the model takes.",
                "Edit fewer facts, or shorten the text.",
            )
        result: Tensor = tokens_bt
        return result

    def _shifted(self, named: dict[str, Any]) -> dict[str, Any]:
        """Tokens that follow a text: their mask has the context's columns, their positions come after it."""
        mask, positions = named.get("attention_mask"), named.get("position_ids")
        more: dict[str, Any] = {}
        if mask is not None:
            more["attention_mask"] = _put_in(mask, mask.new_ones(len(self.tokens_c)), _pads(mask))
        if positions is not None:
            more["position_ids"] = positions + len(self.tokens_c)
        return {**named, **more}

    def _inserted(self, named: dict[str, Any]) -> dict[str, Any]:
        """The context within every row."""
        tokens_bt, mask, positions = (named.get(name) for name in ("input_ids", "attention_mask", "position_ids"))
        assert tokens_bt is not None
        starts_b = self._starts(tokens_bt, mask)
        size = len(self.tokens_c)
        more: dict[str, Any] = {"input_ids": _put_in(tokens_bt, self.tokens_c.to(tokens_bt.dtype), starts_b)}
        if mask is not None:
            more["attention_mask"] = _put_in(mask, mask.new_ones(size), starts_b)
        if positions is not None:
            positions = positions.expand_as(tokens_bt)
            follows_b1 = (starts_b == tokens_bt.shape[1]).unsqueeze(1)  # nothing but the opening: count on from it
            first_b1 = positions.gather(1, (starts_b.unsqueeze(1) - follows_b1.long())) + follows_b1.long()
            steps_c = torch.arange(size, device=positions.device)
            place_bt = torch.arange(tokens_bt.shape[1], device=positions.device).expand_as(tokens_bt)
            moved_bt = torch.where(place_bt < starts_b.unsqueeze(1), positions, positions + size)
            more["position_ids"] = _put_in(moved_bt, first_b1 + steps_c, starts_b)
        self.read = _Read(size, size + tokens_bt.shape[1])
        return {**named, **more}

    def _alike(self, trunk: Any, named: Mapping[str, Any]) -> bool:
        """Whether what stands before the texts' own tokens is the same in every row, and something follows it."""
        tokens_bt, mask = named["input_ids"], named.get("attention_mask")
        asked = {name: getattr(trunk.config, name, default) for name, default in _OUTPUTS.items()}
        asked |= {name: named[name] for name in _OUTPUTS if named.get(name) is not None}
        if asked != _OUTPUTS:
            return False
        if tokens_bt.shape[1] <= len(self.opening) or (mask is not None and not bool(mask[:, 0].all())):
            return False
        starts_b = self._starts(tokens_bt, mask)
        return bool((starts_b == starts_b[0]).all())

    def _once(self, trunk: Any, named: dict[str, Any]) -> dict[str, Any]:
        """The context run for all rows at once; what is left for the trunk is the texts' own tokens."""
        tokens_bt, mask, positions = (named.get(name) for name in ("input_ids", "attention_mask", "position_ids"))
        assert tokens_bt is not None
        size, start = len(self.tokens_c), int(self._starts(tokens_bt, mask)[0])
        cache, keep = named.get("past_key_values"), _wants_cache(trunk, named)
        if cache is None:
            cache = DynamicCache(config=trunk.config)
        both = torch.cat([tokens_bt[0, :start], self.tokens_c.to(tokens_bt.dtype)]).unsqueeze(0)
        # Past the hooks, which are at work already.
        run = trunk.forward(input_ids=both, past_key_values=cache, use_cache=True, return_dict=True)
        cache.batch_repeat_interleave(len(tokens_bt))
        # Where the opening stood, what was read last is the context.
        states = run.last_hidden_state[:, both.shape[1] - start :].expand(len(tokens_bt), -1, -1)
        more: dict[str, Any] = {"input_ids": tokens_bt[:, start:], "past_key_values": cache, "use_cache": True}
        if mask is not None:
            more["attention_mask"] = torch.cat([mask.new_ones(len(mask), size), mask], dim=1)
        if positions is not None:
            more["position_ids"] = positions[:, start:] + size
        self.read = _Read(0, 0, states, keep)
        return {**named, **more}

    def _starts(self, tokens_bt: Tensor, mask: Tensor | None) -> Tensor:
        """``(b,)``: where each text's own tokens begin, behind its padding and its opening."""
        starts_b = tokens_bt.new_zeros(len(tokens_bt)) if mask is None else _pads(mask)
        if not len(self.opening):
            return starts_b
        places_bo = starts_b.unsqueeze(1) + torch.arange(len(self.opening), device=tokens_bt.device)
        inside_b = places_bo[:, -1] < tokens_bt.shape[1]
        found_bo = tokens_bt.gather(1, places_bo.clamp(max=tokens_bt.shape[1] - 1))
        opened_b = inside_b & (found_bo == self.opening).all(dim=1)
        return starts_b + len(self.opening) * opened_b.long()


def _pads(mask_bl: Tensor) -> Tensor:
    """``(b,)``: positions before each row's first one that counts; all of them where none does."""
    return (mask_bl.cumsum(dim=1) == 0).sum(dim=1)


def _put_in(values_bt: Tensor, added_c: Tensor, starts_b: Tensor) -> Tensor:
    """``(b, t + c)``: each row with ``added_c`` (one for all rows, or ``(b, c)``) put in at its start."""
    size, rows = added_c.shape[-1], len(values_bt)
    if not size:
        return values_bt
    place_bl = torch.arange(values_bt.shape[1] + size, device=values_bt.device).expand(rows, -1)
    within_bl = place_bl - starts_b.unsqueeze(1)
    kept_bl = values_bt.gather(
        1, torch.where(within_bl < 0, place_bl, (place_bl - size).clamp(min=0)).clamp(max=values_bt.shape[1] - 1)
    )
    put_bl = added_c.expand(rows, -1).gather(1, within_bl.clamp(0, size - 1))
    return torch.where((within_bl >= 0) & (within_bl < size), put_bl, kept_bl)


def _wants_cache(trunk: Any, named: Mapping[str, Any]) -> bool:
    """Whether the trunk will return an attention cache."""
    asked = named.get("use_cache")
    return bool(trunk.config.use_cache if asked is None else asked)


def _cut(value: Any, read: _Read) -> Any:
    """States, or attention from them, without those of the context; whatever else a trunk returns as it is."""
    if isinstance(value, tuple):
        return tuple(_cut(part, read) for part in value)
    if isinstance(value, Tensor) and value.dim() in (3, 4) and value.shape[-2] == read.total:
        return value[..., read.added :, :]
    return value
