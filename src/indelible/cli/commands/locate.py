"""``indelible locate``: causal tracing, and the layers that ``layers: auto`` would edit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.commands.facts import Columns, Schema, read_file
from indelible.errors import ConfigError, FactsError, StoreError, suggest

if TYPE_CHECKING:
    from indelible.facts.fact import Fact

KINDS = ("hidden", "mlp", "attention")
SPAN = 3


def locate(
    model: Annotated[str, typer.Argument(help="A bundled name, a folder or a hub id.")],
    facts: Annotated[
        Path | None, typer.Option(help="Facts that the model knows (JSONL, JSON, CSV); by default built-in ones.")
    ] = None,
    schema: Schema = None,
    columns: Columns = None,
    limit: Annotated[int, typer.Option(min=1, help="Facts to trace, at most.")] = 16,
    kinds: Annotated[list[str] | None, typer.Option("--kind", help="hidden, mlp or attention. Repeatable.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Draws of noise for each fact.")] = 3,
    noise: Annotated[float, typer.Option(min=0, help="Size of the noise, in deviations of the embeddings.")] = 3.0,
    window: Annotated[
        int | None, typer.Option(min=1, help="Layers restored together (mlp, attention); 10, or a third of few.")
    ] = None,
    span: Annotated[int, typer.Option(min=1, help="Layers to choose.")] = SPAN,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise, and of the built-in facts' draw.")] = 0,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for traces.parquet and tracing.png.")] = Path(
        "traces"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print layers and mean effects as JSON.")] = False,
) -> None:
    """Find where a model keeps facts: put noise on a subject, restore clean states, see what brings the answer back.

    Writes every trace as a table and the heat maps that the ROME paper made known, and names the layers that
    `layers: auto` would take for these facts: it traces windows as wide as what is edited (`--span`), at the subject's
    last token.
    """
    wanted = tuple(kinds or KINDS)
    for kind in wanted:
        if kind not in KINDS:
            raise ConfigError(f"Unknown kind of state {kind!r}.", suggest(kind, KINDS))
    if out.is_file():
        raise StoreError(f"{out} is a file.", "Give a folder.")
    given = None
    if facts is not None:
        given = read_file(facts, schema, columns)

    import pandas as pd

    from indelible.cli.display import counting, show_table
    from indelible.edits.tracing.locate import located_layers
    from indelible.edits.tracing.trace import GROUPS, trace_facts
    from indelible.models.bundled.fetch import cache_folder
    from indelible.models.fingerprint import fingerprint
    from indelible.models.layout import find_layout
    from indelible.models.load import load
    from indelible.report.drawing.causal_trace import draw_trace

    loaded = load(model)
    layout = find_layout(loaded.model)
    chosen = _known(loaded, given, limit, seed)
    with counting("tracing") as progress:
        traced = trace_facts(
            loaded.model,
            loaded.tokenizer,
            layout,
            chosen,
            kinds=wanted,  # type: ignore[arg-type]
            samples=samples,
            noise=noise,
            window=window,
            seed=seed,
            progress=progress,
        )
    rows = pd.DataFrame([{**asdict(one), "effect": one.effect} for one in traced])
    try:
        out.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(out / "traces.parquet", index=False)
        draw_trace(rows, list(GROUPS), out / "tracing.png")
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error.strerror}.", "Check the folder and its space.") from None
    layers = None
    if "mlp" in wanted:
        with counting("choosing layers") as progress:
            layers = list(
                located_layers(
                    loaded.model,
                    loaded.tokenizer,
                    layout,
                    chosen,
                    fingerprint=fingerprint(loaded.model),
                    cache=cache_folder() / "covariances",
                    span=min(span, layout.n_layers),
                    seed=seed,
                    progress=progress,
                )
            )
    at_subject = rows[rows["group"] == GROUPS[2]]
    means = at_subject.pivot_table("effect", "layer", "kind", "mean")
    if as_json:
        effects = {kind: [round(float(value), 6) for value in means[kind]] for kind in means.columns}
        found: dict[str, Any] = {"facts": int(rows["fact_id"].nunique()), "layers": layers, "effects": effects}
        typer.echo(json.dumps(found, indent=2))
        return
    show_table(
        ["layer", *means.columns],
        [
            [str(layer), *(f"{value:+.3f}" for value in line)]
            for layer, line in zip(means.index, means.values, strict=True)
        ],
    )
    typer.echo(f"Mean indirect effects at the subject's last token, {rows['fact_id'].nunique()} facts.")
    if layers is not None:
        typer.echo(f"layers: auto, with {span} of them, would edit {layers}; what edits best is for a sweep to say.")
    typer.echo(f"Traces: {out / 'traces.parquet'}, figure: {out / 'tracing.png'}")


def _known(loaded: Any, given: list[Fact] | None, limit: int, seed: int) -> list[Fact]:
    from indelible.cli.display import counting
    from indelible.exam.exam import known_facts
    from indelible.facts.choose import in_turns
    from indelible.facts.world import world_facts

    candidates = in_turns(world_facts(), seed) if given is None else given
    with counting("asking") as progress:
        known = known_facts(loaded.model, loaded.tokenizer, candidates, enough=limit, progress=progress)
    if not known:
        raise FactsError(f"The model knows none of these {len(candidates)} facts.", "Give facts that it answers.")
    return known
