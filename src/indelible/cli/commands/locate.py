"""``indelible locate``: causal tracing, and the layers that ``layers: auto`` would edit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.completing import models
from indelible.cli.options import AsJson, Columns, Schema, Trust, read_file
from indelible.cli.terminal import say
from indelible.documents import LARGEST
from indelible.files import check_writable, disk_errors

EXAMPLES = (
    "Examples:",
    "`indelible locate smollm2-135m` # traces built-in facts that the model knows into traces/",
    "`indelible locate gpt2 --facts my.jsonl --kind mlp --samples 10 -o traces/gpt2`",
)


def locate(
    model: Annotated[str, typer.Argument(help="A bundled name, a folder or a hub id.", autocompletion=models)],
    facts: Annotated[
        Path | None, typer.Option(help="Facts that the model knows (JSONL, JSON, CSV); by default built-in ones.")
    ] = None,
    schema: Schema = None,
    columns: Columns = None,
    limit: Annotated[int, typer.Option(min=1, help="Facts to trace, at most.")] = 16,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="hidden, mlp or attention; by default all. Repeatable.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Draws of noise for each fact.")] = 3,
    noise: Annotated[float, typer.Option(min=0, help="Size of the noise, in deviations of the embeddings.")] = 3.0,
    window: Annotated[
        int | None, typer.Option(min=1, help="Layers restored together (mlp, attention); 10, or a third of few.")
    ] = None,
    span: Annotated[int, typer.Option(min=1, help="Layers to choose.")] = 3,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST, help="Seed of the noise, and of the built-in facts' draw.")
    ] = 0,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for traces.parquet and tracing.png.")] = Path(
        "traces"
    ),
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Find where a model keeps facts: put noise on a subject, restore clean states, see what brings the answer back.

    Writes every trace as a table and the heat maps that the ROME paper made known, and names the layers that
    `layers: auto` would take for these facts: it traces windows as wide as what is edited (`--span`), at the subject's
    last token.
    """
    check_writable(out)
    given = None if facts is None else read_file(facts, schema, columns)

    from indelible.cli.display import show_table
    from indelible.edits.tracing import locate as tracing
    from indelible.edits.tracing.trace import GROUPS, KINDS
    from indelible.exam.known import facts_known_to
    from indelible.models.load import load
    from indelible.report.drawing.causal_trace import draw_trace
    from indelible.watching import counting

    wanted = tracing.checked_kinds(kinds or KINDS)
    loaded = load(model, trust_remote_code=trust)
    with counting("asking") as progress:
        known = facts_known_to(loaded, given, enough=limit, seed=seed, progress=progress)
    found = tracing.locate(
        loaded,
        known,
        kinds=wanted,
        samples=samples,
        noise=noise,
        window=window,
        span=span,
        seed=seed,
        jobs=counting,
    )
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        found.traces.to_parquet(out / "traces.parquet", index=False)
        draw_trace(found.traces, list(GROUPS), out / "tracing.png")
    effects, traced = found.effects, int(found.traces["fact_id"].nunique())
    if as_json:
        rounded = {kind: [round(float(value), 6) for value in effects[kind]] for kind in effects.columns}
        layers = None if found.layers is None else list(found.layers)
        say(json.dumps({"facts": traced, "layers": layers, "effects": rounded}, indent=2))
        return
    lines = [[str(row.Index), *(f"{value:+.3f}" for value in row[1:])] for row in effects.itertuples()]
    show_table(["layer", *effects.columns], lines)
    say(f"Mean indirect effects at the subject's last token, {traced} facts.")
    if found.layers is not None:
        layers = list(found.layers)
        say(f"layers: auto, with {span} of them, would edit {layers}; what edits best is for a sweep to say.")
    say(f"Traces: {out / 'traces.parquet'}, figure: {out / 'tracing.png'}")
