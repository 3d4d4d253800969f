"""Causal tracing: which states, where, carry a fact (ROME, Meng et al. 2022, section 2, arXiv 2202.05262).

A fact is asked three ways: as it is (clean); with noise on its subject's embeddings (corrupted), so that the model no
longer knows whom it is asked about; and corrupted, but with some clean states put back (restored). By how much a
restored state brings the answer's probability back is its *indirect effect*.

Exact and no dearer than it has to be: the corrupted run is made once, everything below a restored layer is taken from
it, and all positions and samples of one layer are run together. A trace of one fact costs, per kind of state, about
layers / 2 runs of the model for every position from the subject on, times the samples.

Where a fact is stored and where it is best edited are two questions (Hase et al. 2023, arXiv 2301.04213): what
``layers: auto`` makes of a trace is a starting point, to be held against a sweep.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.edits.whole_files import renamed_to
from indelible.errors import EditError
from indelible.facts.fact import Fact
from indelible.models.layout import Layout
from indelible.models.tokens import encode_prompt, encode_target, subject_tokens
from indelible.models.trace import by_row, capture, evaluating, replace, resume_from, select_before_head

Kind = Literal["hidden", "mlp", "attention"]
Progress = Callable[[int, int, str], None]

GROUPS = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first further token",
    "further tokens",
    "last token",
)
"""Positions as the ROME paper groups them. A subject of one token is its own last."""

_AUTO_FACTS = 8
_AUTO_SAMPLES = 2


@dataclass(frozen=True)
class Traced:
    """The effect of restoring one state of one fact.

    Attributes:
        fact_id: of the fact.
        kind: what was restored: a block's output ("hidden"), or what MLP or attention returned in a window of layers.
        layer: the block, or the window's middle.
        position: index of the token in the prompt.
        group: one of ``GROUPS``.
        clean: probability of the answer's first token without noise.
        corrupted: with noise, a mean over samples.
        restored: with noise and the clean state, a mean over samples.
    """

    fact_id: str
    kind: Kind
    layer: int
    position: int
    group: str
    clean: float
    corrupted: float
    restored: float

    @property
    def effect(self) -> float:
        """The indirect effect."""
        return self.restored - self.corrupted


def trace_facts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    facts: Sequence[Fact],
    *,
    kinds: Sequence[Kind] = ("hidden", "mlp", "attention"),
    groups: Sequence[str] = GROUPS,
    samples: int = 3,
    noise: float = 3.0,
    window: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Traced]:
    """Trace facts that the model knows; the others are left out.

    Args:
        model: left as it was.
        tokenizer: the model's.
        layout: the model's.
        facts: asked for their true objects.
        kinds: what is restored.
        groups: positions at which it is restored.
        samples: draws of noise for each fact, the same for all that is restored of it.
        noise: standard deviation of the noise, in standard deviations of the input embeddings.
        window: layers whose MLP or attention outputs are restored together; None takes 10, as published, or a third of
            a shallower model's.
        seed: of the noise.
        progress: called with (facts done, facts, note).

    Raises:
        EditError: if the model answers none of the facts by its most probable next token.
        FactsError: if a prompt lacks its subject.
    """
    width = window or max(1, min(10, layout.n_layers // 3))
    found: list[Traced] = []
    known = 0
    with evaluating(model), torch.no_grad():
        size = noise * float(_embedding(model).weight.float().std())
        for number, fact in enumerate(facts):
            traces = _Fact(model, tokenizer, layout, fact, samples, size, seed)
            if traces.known:
                known += 1
                for kind in kinds:
                    found += traces.restore(kind, groups, width)
            if progress is not None:
                progress(number + 1, len(facts), f"{known} known")
    if not known:
        raise EditError(
            f"The model answers none of these {len(facts)} facts, so that nothing can be traced.",
            "Give facts that it knows (`indelible facts --known-by MODEL`).",
        )
    return found


def _embedding(model: PreTrainedModel) -> Any:
    return model.get_input_embeddings()


class _Fact:
    """One fact's clean and corrupted runs, and what comes of restoring parts of the one in the other."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        layout: Layout,
        fact: Fact,
        samples: int,
        noise: float,
        seed: int,
    ) -> None:
        self.model, self.layout, self.fact, self.samples = model, layout, fact, samples
        tokens = encode_prompt(tokenizer, fact.text())
        self.answer = encode_target(tokenizer, fact.text(), fact.true_object)[0]
        self.subject = subject_tokens(tokenizer, fact.prompt, fact.subject)
        self.length = len(tokens)
        self.tokens = torch.tensor([tokens], device=model.device)
        paths = [*layout.blocks, *layout.attention, *layout.mlp_out]
        with capture(model, outputs_of=paths, copies=True) as seen:
            logits = self._logits(self.tokens)
        self.states = {path: by_row(output, 1)[0] for path, output in seen.outputs.items()}
        self.clean = float(logits.softmax(-1)[0, self.answer])
        self.known = int(logits[0].argmax()) == self.answer
        if not self.known:
            return
        first, last = self.subject
        digest = hashlib.sha256(f"{seed} {fact.id}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        shape = (samples, last + 1 - first, _embedding(model).weight.shape[1])
        drawn = noise * torch.randn(shape, generator=generator)

        def corrupt(output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, first : last + 1] += drawn.to(device=output.device, dtype=output.dtype)
            return changed

        self._noise = corrupt
        self._embeddings = next(path for path, part in model.named_modules() if part is _embedding(model))
        with (
            replace(model, self._embeddings, corrupt),
            capture(model, outputs_of=list(layout.blocks), copies=True) as noisy,
        ):
            logits = self._logits(self.tokens.expand(samples, -1))
        self.noisy = {path: by_row(output, samples) for path, output in noisy.outputs.items()}
        self.corrupted = float(logits.softmax(-1)[:, self.answer].mean())

    def _noise_for_all(self, output: Tensor) -> Tensor:
        """The same noise for every position that is restored."""
        return torch.cat([self._noise(part) for part in output.split(self.samples)])

    def restore(self, kind: Kind, groups: Sequence[str], window: int) -> list[Traced]:
        """Restore every layer (or window around it) at every position of these groups, one position at a time."""
        places = [place for place in range(self.subject[0], self.length) if self._group(place) in groups]
        if not places:
            return []
        found = []
        for layer in range(self.layout.n_layers):
            chances = self._restored(kind, layer, places, window)
            found += [
                Traced(self.fact.id, kind, layer, place, self._group(place), self.clean, self.corrupted, float(chance))
                for place, chance in zip(places, chances, strict=True)
            ]
        return found

    def _restored(self, kind: Kind, layer: int, places: Sequence[int], window: int) -> Tensor:
        """Probability of the answer for each place, a mean over samples."""
        layout = self.layout
        rows = torch.arange(len(places) * self.samples, device=self.model.device)
        at = torch.tensor(places, device=self.model.device).repeat_interleave(self.samples)
        if kind == "hidden":
            layers, paths = [layer], layout.blocks
        else:
            first = max(0, layer - window // 2)
            layers = list(range(first, min(layout.n_layers, layer - window // 2 + window)))
            paths = layout.mlp_out if kind == "mlp" else layout.attention
        with ExitStack() as stack:
            for one in layers:
                clean_td = self.states[paths[one]]

                def put_back(output: Tensor, clean_td: Tensor = clean_td) -> Tensor:
                    changed = by_row(output, len(rows)).clone()
                    changed[rows, at] = clean_td[at]
                    return changed.view_as(output)

                stack.enter_context(replace(self.model, paths[one], put_back))
            start = layers[0]
            if start == 0:
                stack.enter_context(replace(self.model, self._embeddings, self._noise_for_all))
            else:
                below = self.noisy[layout.blocks[start - 1]].repeat(len(places), 1, 1)
                as_tuple = layout.blocks_return_tuple
                stack.enter_context(resume_from(self.model, layout.blocks, start, below, as_tuple=as_tuple))
            logits = self._logits(self.tokens.expand(len(rows), -1))
        return logits.softmax(-1)[:, self.answer].view(len(places), self.samples).mean(1)

    def _logits(self, tokens: Tensor) -> Tensor:
        """Logits after the last token of each row."""
        rows = torch.arange(len(tokens), device=tokens.device)
        last = torch.full_like(rows, self.length - 1)
        with select_before_head(self.model.get_submodule(self.layout.head), rows, last):
            logits: Tensor = self.model(tokens, use_cache=False).logits[0]
        return logits.float()

    def _group(self, place: int) -> str:
        first, last = self.subject
        if place == last:
            return GROUPS[2]
        if place < last:
            return GROUPS[0] if place == first else GROUPS[1]
        if place == self.length - 1:
            return GROUPS[5]
        return GROUPS[3] if place == last + 1 else GROUPS[4]


def choose_layers(traced: Sequence[Traced], layout: Layout, span: int) -> tuple[int, ...]:
    """The layers to edit: as many as ``span``, up to where the MLPs' effect at the last subject token is largest.

    This is MEMIT's rule (Meng et al. 2023, section 4.3: the layers up to the last one that mediates) with the peak of
    the mean effect as the last. The window is wide and its middle is meant, so that a peak at the edge of the model
    still has ``span`` layers.

    Raises:
        EditError: if MLPs were not traced at the last subject token.
    """
    effects: dict[int, list[float]] = {}
    for one in traced:
        if one.kind == "mlp" and one.group == GROUPS[2]:
            effects.setdefault(one.layer, []).append(one.effect)
    if not effects:
        raise EditError("No MLP was traced at the last subject token.", "Trace the kind 'mlp'.")
    means = {layer: sum(values) / len(values) for layer, values in effects.items()}
    last = max(max(means, key=lambda layer: means[layer]), span - 1)
    return tuple(range(max(0, last - span + 1), min(last, layout.n_layers - 1) + 1))


def located_layers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    facts: Sequence[Fact],
    *,
    fingerprint: str,
    cache: Path | None,
    span: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[int, ...]:
    """The layers of ``layers: auto``: a short trace of the facts, kept on disk by model and facts.

    Args:
        model: left as it was.
        tokenizer: the model's.
        layout: the model's.
        facts: the first eight are traced; those that the model does not know are left out.
        fingerprint: the model's.
        cache: folder to keep the answer in, or None.
        span: how many layers.
        seed: of the noise.
        progress: called with (facts done, facts, note).

    Raises:
        EditError: if the model knows none of the facts.
    """
    some = facts[:_AUTO_FACTS]
    asked = [[fact.id, fact.text(), fact.subject, fact.true_object] for fact in some]
    question = json.dumps([asked, seed, _AUTO_SAMPLES])
    name = f"{fingerprint[:16]}-traced-{hashlib.sha256(question.encode()).hexdigest()[:16]}.json"
    kept = None if cache is None else _kept(cache / name)
    if kept is None:
        kept = trace_facts(
            model,
            tokenizer,
            layout,
            some,
            kinds=("mlp",),
            groups=(GROUPS[2],),
            samples=_AUTO_SAMPLES,
            seed=seed,
            progress=progress,
        )
        if cache is not None:
            _keep(cache / name, kept)
    return choose_layers(kept, layout, span)


def _kept(path: Path) -> list[Traced] | None:
    """What an earlier call kept; a file that was cut short counts as absent."""
    try:
        return [Traced(**entry) for entry in json.loads(path.read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return None


def _keep(path: Path, traced: Sequence[Traced]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with renamed_to(path) as unfinished:
        unfinished.write_text(json.dumps([asdict(one) for one in traced]), "utf-8")
