"""The layers to edit, as causal tracing (trace.py) would have them.

Where a fact is stored and where it is best edited are two questions (Hase et al. 2023, arXiv 2301.04213): what
``layers: auto`` makes of a trace is a starting point. It asks which neighbouring layers, as many as will be edited,
bring the answer back when their MLPs are restored together. Wider windows, such as the ten layers of the published
figure, blur the answer where few layers do the work: on SmolLM2-135M every window that begins at layer 0 does equally
well, and the middle of one says nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from indelible.edits.editor import Workbench
from indelible.edits.tracing.trace import GROUPS, KINDS, Kind, Traced, trace_facts
from indelible.errors import ConfigError, EditError, LayoutError, suggest
from indelible.facts.fact import Fact
from indelible.files import disk_errors, unkept, whole_file
from indelible.hashes import read_sealed, sealed
from indelible.models.bundled.fetch import cache_folder
from indelible.models.fingerprint import Identity
from indelible.models.layout import Layout, find_layout
from indelible.models.load import LoadedModel, opened
from indelible.models.tokens import encode_object, encode_prompt
from indelible.models.trace import evaluating
from indelible.progress import Jobs, silently

if TYPE_CHECKING:
    import pandas as pd

_AUTO_FACTS = 16
_AUTO_SAMPLES = 2
_TRACED = "traced"


@dataclass(frozen=True)
class Located:
    """Where a model keeps facts, as causal tracing shows it.

    Attributes:
        traces: one row per fact, kind, layer and position with the attributes of ``Traced``.
        layers: those that ``layers: auto`` would edit for these facts; None where MLPs were not traced.
    """

    traces: pd.DataFrame
    layers: tuple[int, ...] | None

    @property
    def effects(self) -> pd.DataFrame:
        """Mean indirect effects at the subject's last token: a row per layer, a column per kind."""
        at_subject = self.traces[self.traces["group"] == GROUPS[2]]
        return at_subject.pivot_table("effect", "layer", "kind", "mean")


def checked_kinds(kinds: Sequence[str]) -> tuple[Kind, ...]:
    """Kinds of states that can be traced.

    Raises:
        ConfigError: for one that does not exist.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"Unknown kind of state {kind!r}.", suggest(kind, KINDS))
    return tuple(kind for kind in KINDS if kind in kinds)


def locate(
    model: LoadedModel | str,
    facts: Sequence[Fact],
    *,
    kinds: Sequence[str] = KINDS,
    samples: int = 3,
    noise: float = 3.0,
    window: int | None = None,
    span: int = 3,
    seed: int = 0,
    jobs: Jobs = silently,
) -> Located:
    """Trace facts through a model, and choose the layers that ``layers: auto`` would edit.

    Args:
        model: the model, or its name; left as it was.
        facts: that it knows.
        kinds: of states to restore; layers are chosen where "mlp" is among them.
        samples: draws of noise for each fact.
        noise: its size, in deviations of the embeddings.
        window: layers restored together (MLPs, attention); by default ten, or a third of few.
        span: layers to choose; the trace that chooses them has windows as wide.
        seed: of the noise.
        jobs: told how far the work is.

    Raises:
        ConfigError: for a kind that does not exist.
        EditError: if there are no facts, or the model knows none of them.
    """
    import pandas as pd

    if not facts:
        raise EditError("There are no facts to trace.", "Give facts that the model knows.")
    loaded = opened(model)
    layout = find_layout(loaded.model)
    with jobs("tracing") as progress:
        traced = trace_facts(
            loaded.model,
            loaded.tokenizer,
            layout,
            facts,
            kinds=checked_kinds(kinds),
            samples=samples,
            noise=noise,
            window=window,
            seed=seed,
            progress=progress,
        )
    layers = None
    if "mlp" in kinds:
        with jobs("choosing layers") as progress:
            bench = Workbench.model_construct(
                model=loaded.model,
                tokenizer=loaded.tokenizer,
                layout=layout,
                identity=Identity.of(loaded.model),
                cache=cache_folder() / "covariances",
                seed=seed,
                progress=progress,
            )
            layers = located_layers(bench, facts, min(span, layout.n_layers))
    return Located(pd.DataFrame([{**asdict(one), "effect": one.effect} for one in traced]), layers)


def choose_layers(traced: Sequence[Traced], layout: Layout, span: int) -> tuple[int, ...]:
    """The ``span`` neighbours whose MLPs' mean effect at the last subject token is largest, in traces of that window.

    Raises:
        EditError: if MLPs were not traced at the last subject token.
        LayoutError: as ``neighbours``.
    """
    choices = neighbours(layout, span)
    effects: dict[int, list[float]] = {}
    for one in traced:
        if one.kind == "mlp" and one.group == GROUPS[2] and one.layer in choices:
            effects.setdefault(one.layer, []).append(one.effect)
    if not effects:
        raise EditError("No MLP was traced at the last subject token.", "Trace the kind 'mlp'.")
    means = {layer: sum(values) / len(values) for layer, values in effects.items()}
    return choices[max(means, key=lambda layer: means[layer])]


def neighbours(layout: Layout, span: int) -> dict[int, tuple[int, ...]]:
    """By layer, the ``span`` layers that it is in the middle of, where each of them has a memory.

    Near the edge of the model they are moved, so that there are as many if the model has them. Its last layer is left
    out as long as there are enough below it: what it returns at a subject reaches no later token.

    Raises:
        LayoutError: if so many neighbours with a memory are nowhere.
    """
    known, count = layout.known_memories, layout.n_layers
    if not known:
        layout.memory(0)
    starts = {layer: max(0, min(layer - span // 2, count - 1 - span)) for layer in range(count)}
    found = {layer: tuple(range(first, min(first + span, count))) for layer, first in starts.items()}
    found = {layer: layers for layer, layers in found.items() if known.keys() >= set(layers)}
    if not found:
        raise LayoutError(
            f"Causal tracing cannot choose layers: no {span} neighbours have a linear map to edit.",
            f"Give layers instead of auto, from {', '.join(map(str, known))}.",
        )
    return found


def located_layers(bench: Workbench, facts: Sequence[Fact], span: int) -> tuple[int, ...]:
    """The so many layers of ``layers: auto``: a short trace of the facts, kept on disk by model and facts.

    Raises:
        EditError: if the model knows none of the facts.
    """
    # Which of the facts are traced depends on all of them and on the model: the name stands for all.
    asked = [[fact.id, fact.prompt, fact.subject, fact.true_object] for fact in facts]
    question = json.dumps([asked, bench.seed, _AUTO_FACTS, _AUTO_SAMPLES, span])
    name = f"{bench.fingerprint[:16]}-traced-{hashlib.sha256(question.encode()).hexdigest()[:16]}.json"
    traced = None if bench.cache is None else _kept(bench.cache / name)
    if traced is None:
        traced = trace_facts(
            bench.model,
            bench.tokenizer,
            bench.layout,
            _known(bench, facts),
            kinds=("mlp",),
            groups=(GROUPS[2],),
            samples=_AUTO_SAMPLES,
            window=span,
            seed=bench.seed,
            progress=bench.progress,
        )
        if bench.cache is not None:
            with unkept("What tracing found is"), disk_errors(bench.cache):
                bench.cache.mkdir(parents=True, exist_ok=True)
                with whole_file(bench.cache / name) as unfinished:
                    content = sealed({_TRACED: [asdict(one) for one in traced]})
                    unfinished.write_text(json.dumps(content), "utf-8")
    return choose_layers(traced, bench.layout, span)


def _known(bench: Workbench, facts: Sequence[Fact]) -> list[Fact]:
    """The first sixteen facts that the model knows, by what tracing asks of them: the most probable next token."""
    model, tokenizer = bench.model, bench.tokenizer
    found: list[Fact] = []
    with evaluating(model), torch.no_grad():
        for fact in facts:
            if len(found) == _AUTO_FACTS:
                break
            tokens = torch.tensor([encode_prompt(tokenizer, fact.text())], device=model.device)
            said = int(model(tokens, use_cache=False).logits[0, -1].argmax())
            if said == encode_object(tokenizer, fact.text(), fact.true_object)[0]:
                found.append(fact)
    if not found:
        raise EditError(
            f"The model answers none of all {len(facts)} facts, so that tracing them cannot choose layers.",
            "Give layers instead of auto, or facts that it knows.",
        )
    return found


def _kept(path: Path) -> list[Traced] | None:
    """What an earlier call kept; a damaged file counts as absent, and so does one of an older version."""
    content = read_sealed(path, besides=_TRACED)
    return [Traced(**entry) for entry in content[_TRACED]] if _TRACED in content else None
