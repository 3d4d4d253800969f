"""One forward pass over a few tokens, everything that every module saw in it, and what becomes of it when parts change.

Blocks and their parts are run again by themselves, with the arguments of that pass: with another state entering, with
parts *frozen* (returning what they returned then) or one *nudged* (returning a little more).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from indelible.errors import LayoutError
from indelible.models.trace import by_row, capture, first_tensor, replace, resume_from

_LENGTH = 8


def not_found(what: str) -> LayoutError:
    """Something in a model's module tree that its user may know better."""
    return LayoutError(what, "If you know them, give the paths: find_layout(model, blocks=..., mlp_out=...).")


def _moves(after: Tensor, before: Tensor) -> bool:
    """Whether two results differ anywhere by more than rounding: entry by entry, for some are thousands of others."""
    size = before.abs()
    return bool(((after - before).abs() > min(64 * torch.finfo(before.dtype).eps, 1e-2) * (size + size.median())).any())


class Probe:
    """The pass, by module path: what entered (the first floating-point states among the arguments) and what left.

    Args:
        model: in evaluation mode, its parameters without gradients.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.order: list[str] = []
        self.calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.arguments: dict[str, Tensor] = {}
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.returned: dict[str, int] = {}  # length of the tuple; 0 for the states themselves
        spread = torch.arange(1, _LENGTH + 1, device=model.device) * 37
        self.tokens = (spread % self.embedding().shape[0]).unsqueeze(0)
        with ExitStack() as stack:
            for name, module in model.named_modules():
                if name:
                    hook = partial(self._record, name)
                    stack.enter_context(module.register_forward_hook(hook, with_kwargs=True))
            try:
                self.logits: Tensor = model(self.tokens, use_cache=False).logits
            except Exception as error:
                raise LayoutError(
                    f"{type(model).__name__} failed on a forward pass over {_LENGTH} tokens: {error}.",
                    "Give a causal language model.",
                ) from error

    def _record(
        self, path: str, _module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: Any
    ) -> None:
        self.order.append(path)
        self.calls[path] = (args, options)
        self.returned[path] = 0 if isinstance(output, Tensor) else len(output)
        for value in (*args, *options.values()):
            if isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2:
                self.arguments[path] = value
                self.inputs[path] = value.clone()  # some families add to their activations in place
                break
        leaving = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(leaving, Tensor):
            self.outputs[path] = leaving.clone()

    def again(
        self,
        path: str,
        *,
        entering: Tensor | None = None,
        frozen: Collection[str] = (),
        nudges: Mapping[str, Tensor] | None = None,
        watched: Sequence[str] = (),
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What a module returns under changes, its other arguments as they were, and what watched modules return."""
        (args, options), old = self.calls[path], self.arguments[path]
        given = self.inputs[path].clone() if entering is None else entering
        swapped = [given if value is old else value for value in args]
        named = {key: given if value is old else value for key, value in options.items()}
        with ExitStack() as stack:
            for one in frozen:
                stack.enter_context(replace(self.model, one, partial(lambda kept, _: kept.clone(), self.outputs[one])))
            for one, nudge in (nudges or {}).items():
                stack.enter_context(replace(self.model, one, partial(torch.add, nudge)))
            seen = stack.enter_context(capture(self.model, outputs_of=watched, copies=True))
            returned = first_tensor(self.model.get_submodule(path)(*swapped, **named)).clone()
        return returned, seen.outputs

    def mixes(self, path: str, frozen: Collection[str] = ()) -> bool:
        """Whether what a module returns for later tokens depends on the state of the first."""
        entering, leaving = self.inputs.get(path), self.outputs.get(path)
        if entering is None or leaving is None:
            return False
        if any(states.dim() != 3 or states.shape[1] != _LENGTH for states in (entering, leaving)):
            return False
        changed = entering.clone()
        changed[:, 0] += entering.std() * torch.linspace(-1, 1, entering.shape[-1], device=entering.device)
        if frozen:
            leaving, _ = self.again(path, frozen=frozen)
        later = self.again(path, entering=changed, frozen=frozen)[0][:, 1:] - leaving[:, 1:]
        return bool(later.abs().max() > 1e-3 * leaving.abs().max())

    def mixing_within(self, path: str) -> list[str]:
        """The outermost parts of a module that carry information from one token to a later one."""
        found: list[str] = []
        for part in sorted(self.inside(path), key=lambda inner: inner.count(".")):
            if not any(part.startswith(f"{outer}.") for outer in found) and self.mixes(part):
                found.append(part)
        return found

    def inside(self, path: str) -> list[str]:
        """Everything that ran within a module, in order."""
        return [part for part in dict.fromkeys(self.order) if part.startswith(f"{path}.")]

    def resumes(self, blocks: Sequence[str]) -> bool:
        """Whether the last block gives the same logits on its stored input with all others skipped.

        It does not where blocks hand each other more than the residual stream, attention's keys and values say.
        """
        if len(blocks) == 1:
            return True
        hidden, as_tuple = self.outputs[blocks[-2]], self.returned[blocks[-2]]
        with resume_from(self.model, blocks, len(blocks) - 1, hidden, as_tuple=as_tuple):
            try:
                return not _moves(self.model(self.tokens, use_cache=False).logits, self.logits)
            except Exception:  # whatever a family misses of the blocks that were skipped
                return False

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

    def attention_within(self, mixing: Sequence[str]) -> str:
        """Of what ``mixing_within`` found in a block, the smallest part without which nothing gets from token to token.

        What mixes within such a part is passed over where it does not do so alone: convolutions, indexers. Of several
        parts side by side it is the largest.
        """

        def smallest(path: str) -> str:
            inner = self.mixing_within(path)
            return path if len(inner) != 1 or self.mixes(path, inner) else smallest(inner[0])

        def size(path: str) -> int:
            return sum(weight.numel() for weight in self.model.get_submodule(path).parameters())

        return max(map(smallest, mixing), key=size)

    def memory_within(self, block: str, mixing: Sequence[str], hidden_size: int) -> tuple[str, str]:
        """The linear map outside attention whose output is all that the block's MLP adds; or else why there is none.

        Parts that mix tokens are left out. Of the other maps back to the hidden width, one is the memory if nothing
        else in the block reaches what it returns with that map frozen, but for what reads the map's own output first
        (norms, per-layer gates). In a mixture with a shared expert the other experts do, and so does the gate of a map
        that is multiplied by one.
        """
        outside = [p for p in self.inside(block) if not any(f"{p}.".startswith(f"{mixer}.") for mixer in mixing)]
        weighty = [path for path in outside if path in self.outputs and self._holds_matrix(path)]
        found, reasons = [], []
        for path in reversed(weighty):
            weight, into = getattr(self.model.get_submodule(path), "weight", None), self.inputs.get(path)
            if not isinstance(weight, Tensor) or into is None or self.order.count(path) > 1:
                continue
            fits = sorted(weight.shape) == sorted((into.shape[-1], hidden_size))
            if fits and self.outputs[path].shape[-1] == hidden_size and into[..., 0].numel() == _LENGTH:
                beside = self._beside(block, path, weighty, mixing)
                if not beside:
                    found.append(path)
                reasons.append(f"beside {path[len(block) + 1 :]!r}, {beside} adds to what the block returns")
        if len(found) > 1:
            return "", f"it might be {' or '.join(repr(path[len(block) + 1 :]) for path in found)}"
        if found:
            return found[0], ""
        return "", reasons[0] if reasons else (
            f"no linear map back to the hidden width {hidden_size} was found outside attention (mixtures of experts and"
            " fused MLPs keep none)"
        )

    def _holds_matrix(self, path: str) -> bool:
        return any(weight.dim() > 1 for weight in self.model.get_submodule(path).parameters(recurse=False))

    def _beside(self, block: str, memory: str, parts: Sequence[str], mixing: Sequence[str]) -> str:
        """What reaches the block's output neither through the memory nor after it, in words; "" if nothing does."""
        others = [part for part in parts if part != memory and not memory.startswith(f"{part}.")]
        holding = [part for part in self.inside(block) if memory.startswith(f"{part}.") and part in self.arguments]
        kept = [*mixing, memory]
        before, still = self.again(block, frozen=kept, watched=others)
        moved, after = self.again(block, frozen=mixing, nudges={memory: self._nudge(memory)}, watched=others)
        if not _moves(moved, before):
            return "what it is handed on to, and not it,"
        for part in others:
            read_after = part not in still or _moves(after[part], still[part])
            if not read_after and _moves(self.again(block, frozen=kept, nudges={part: self._nudge(part)})[0], before):
                return repr(part[len(block) + 1 :])
        for part in holding:
            entering = self.inputs[part] + self._nudge_of(self.inputs[part])
            if part in self.outputs and _moves(
                self.again(part, entering=entering, frozen=[memory])[0], self.again(part, frozen=[memory])[0]
            ):
                return f"more of {part[len(block) + 1 :]!r}"
        return ""

    def _nudge(self, path: str) -> Tensor:
        return self._nudge_of(self.outputs[path])

    def _nudge_of(self, states: Tensor) -> Tensor:
        size = states.std() if states.numel() > 1 and bool(states.std() > 0) else torch.ones((), device=states.device)
        return (size * torch.linspace(-1, 1, states.shape[-1], device=states.device)).to(states.dtype)

    def check_memory(self, path: str, hidden_size: int) -> None:
        """Recompute the projection from its input and weight: it must be the linear map that we take it for."""
        try:
            module = self.model.get_submodule(path)
        except AttributeError:
            raise not_found(f"There is no module {path!r}.") from None
        stored = getattr(module, "weight", None)
        if path not in self.inputs or not isinstance(stored, Tensor):
            raise not_found(f"{path!r} took no part in a forward pass or has no weight.")
        if stored.dim() != 2:
            raise not_found(f"The weight of {path!r} is not a matrix.")
        weight = stored if isinstance(module, Conv1D) else stored.T
        keys, output, bias = self.inputs[path], self.outputs[path], getattr(module, "bias", None)
        if keys.shape[-1] != weight.shape[0] or weight.shape[1] != output.shape[-1]:
            raise not_found(f"The weight of {path!r} does not fit its input and output.")
        if weight.shape[1] != hidden_size:
            raise not_found(f"{path!r} does not return to the hidden width {hidden_size}.")
        expected = keys @ weight + (bias if bias is not None else 0)
        if not torch.allclose(expected, output, atol=float(1e-2 * output.abs().max()), rtol=1e-2):
            raise LayoutError(f"{path!r} is not a plain linear map (quantised or wrapped?).", "Load it in float32.")

    def adds_to_residual(self, block: str, memory: str) -> bool:
        """Whether what the memory returns is added to what the block returns as it is."""
        nudge = torch.zeros_like(self.outputs[memory])
        nudge[..., -1, :] = self._nudge(memory)
        moved = self.again(block, nudges={memory: nudge})[0] - self.outputs[block]
        if not bool(moved[:, -1].abs().max() > 0):
            raise not_found(f"Changing what {memory!r} returns does not change its block.")
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
