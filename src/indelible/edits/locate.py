"""The layers to edit, as causal tracing (tracing.py) would have them.

Where a fact is stored and where it is best edited are two questions (Hase et al. 2023, arXiv 2301.04213): what
``layers: auto`` makes of a trace is a starting point, to be held against a sweep.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.edits.tracing import GROUPS, Progress, Traced, trace_facts
from indelible.edits.whole_files import renamed_to
from indelible.errors import EditError
from indelible.facts.fact import Fact
from indelible.models.layout import Layout

_AUTO_FACTS = 16
_AUTO_SAMPLES = 2


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
        facts: the first sixteen are traced; those that the model does not know are left out.
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
