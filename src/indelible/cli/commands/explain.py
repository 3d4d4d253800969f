"""``indelible explain``: which weights lost the edits, and which freeze mask could have kept them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.costing import DryRun, sought, speed_of, tell
from indelible.cli.options import AsJson, Columns, Schema, Trust, model_of, read_file
from indelible.cli.terminal import say
from indelible.documents import LARGEST
from indelible.files import check_writable
from indelible.numbers.words import MINUS, counted, percent_with_interval, points, points_with_interval

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = (
    "Examples:",
    "`indelible explain edited my-fine-tuned-model --edit deltas/mine --mask-forecast`",
    "`indelible explain smollm2-135m my-fine-tuned-model --edit deltas/mine --json > explained.json`",
)


def explain(
    edited: Annotated[str, typer.Argument(help="The edited model, or the base model that the delta was made for.")],
    tuned: Annotated[str, typer.Argument(help="The model after fine-tuning, adapters merged.")],
    delta: Annotated[Path, typer.Option("--edit", metavar="DELTA", help="File written by `indelible edit`.")],
    facts: Annotated[Path | None, typer.Option(help="Edited facts to ask; by default all of the delta's.")] = None,
    schema: Schema = None,
    columns: Columns = None,
    intrinsic: Annotated[
        Path | None,
        typer.Option(help="Facts from pre-training; by default 60 built-in ones that the model answers."),
    ] = None,
    mask_forecast: Annotated[
        bool, typer.Option("--mask-forecast", help="Also say what each freeze mask would have kept.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST, help="Seed of the built-in facts' draw and of the bootstrap.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for mixtures.parquet and drift.parquet.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Find out where fine-tuning lost facts: mix edited and tuned weights, group by group, and ask each mixture.

    Every group of weights gets its Shapley share of the loss. Nothing is trained: with five groups, the facts' own
    prompts are asked 32 times. Beside the shares stands how far the edited memories' keys and outputs turned, and the
    state that the answer is read from.
    """
    if out is not None:
        check_writable(out)
    given = [None if file is None else read_file(file, schema, columns) for file in (facts, intrinsic)]

    from indelible.edits.deltas.adapter import read_delta
    from indelible.models.load import opened
    from indelible.study.run.cost import MIXTURES
    from indelible.watching import counting
    from indelible.why.explain import N_INTRINSIC
    from indelible.why.explain import explain as explain_loss

    loaded, made = opened(model_of(edited, trust)), read_delta(delta)
    facts_asked = len(given[0] or made.facts)
    both = facts_asked + (N_INTRINSIC if given[1] is None else len(given[1]))
    asked = facts_asked + (sought(N_INTRINSIC, None) if given[1] is None else 0) + MIXTURES * both
    seconds = asked * speed_of(loaded).question
    tell(f"{MIXTURES} mixtures of weights, {counted(both, 'question')} each", seconds, seconds, dry_run)
    if dry_run:
        return
    found = explain_loss(loaded, tuned, made, facts=given[0], intrinsic=given[1], seed=seed, jobs=counting)
    if out is not None:
        found.write(out)
    if as_json:
        tables = {"shares": found.shares, "log_prob": found.log_prob, "drift": found.turned}
        if mask_forecast:
            tables["masks"] = found.masks
        shown = {name: _records(table) for name, table in tables.items()}
        say(json.dumps({"retention": found.retention.to_dict("index"), **shown}, indent=2))
        return
    for fact_set, counts in found.retention.to_dict("index").items():
        say(f"{fact_set} facts: {counts['edited']} of {counts['facts']} before tuning, {counts['tuned']} of them after")
    say()
    _show_shares(found.shares, found.log_prob)
    say()
    _show_drift(found.turned)
    if mask_forecast:
        say()
        _show_masks(found.masks)
    if out is not None:
        say(f"Every mixture: {out / 'mixtures.parquet'}, every fact's drift: {out / 'drift.parquet'}")


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON takes them: no NaN."""
    plain = table.drop(columns=["arm", "seeds"], errors="ignore").astype(object)
    records: list[dict[str, Any]] = plain.where(plain.notna(), None).to_dict("records")  # type: ignore[assignment]
    return records


def _show_shares(shares: pd.DataFrame, log_prob: pd.DataFrame) -> None:
    """A line per group: what its tuned weights cost (or saved) in points of retention and in log-probability."""
    from indelible.cli.display import show_table
    from indelible.numbers.measures import FACT_SETS
    from indelible.why.shares import LABELS

    sets: list[str] = [one for one in FACT_SETS if one in set(shares["fact_set"])]
    lines = []
    for group in shares["group"].unique():
        lost, fallen = (t[t["group"] == group].set_index("fact_set").loc[sets] for t in (shares, log_prob))
        saved = (-lost[["share", "high", "low"]]).to_numpy().tolist()
        risen = (-fallen["share"]).tolist()
        lines.append([LABELS[group], *(points_with_interval(*one) for one in saved), *map(_nats, risen)])
    all_saved, all_risen = (
        (-table.groupby("fact_set")["share"].sum(min_count=1)[sets]).tolist() for table in (shares, log_prob)
    )
    lines.append(["all of them", *map(points, all_saved), *map(_nats, all_risen)])
    headings = [f"{one}: points [95%]" for one in sets] + [f"{one}: nats" for one in sets]
    show_table(["tuned weights", *headings], lines)
    say("Points of retention, and mean log-probability of the answer, over facts that had succeeded.")


def _show_drift(drift: pd.DataFrame) -> None:
    """A line per quantity and edited layer, and one for each that is read out."""
    from indelible.cli.display import show_table
    from indelible.report.exhibits.explained import drift_table

    table = drift_table(drift).drop(columns="arm")
    show_table(list(table.columns), table.to_numpy().tolist())
    say("Cosine of edited and tuned, and change of the norm: means over edited facts.")


def _show_masks(masks: pd.DataFrame) -> None:
    from indelible.cli.display import show_table

    numbers = ["retention_edited", "low", "high", "gain", "gain_low", "gain_high"]
    lines = [
        [mask, percent_with_interval(*found[:3]), points_with_interval(*found[3:])]
        for mask, *found in masks[["mask", *numbers]].itertuples(index=False)
    ]
    show_table(["freeze mask", "edited kept [95%]", "gain, points [95%]"], lines)
    say("A forecast: training with the mask would also move otherwise what it leaves free.")


def _nats(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", MINUS)
