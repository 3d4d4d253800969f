"""``indelible explain``: which weights lost the edits, and which freeze mask could have kept them."""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.commands.facts import Columns, Schema, read_file
from indelible.errors import EditError, FactsError, ModelError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from torch import Tensor

    from indelible.edits.deltas.delta import Edit
    from indelible.facts.fact import Fact
    from indelible.models.load import LoadedModel

N_INTRINSIC = 60


def explain(
    edited: Annotated[str, typer.Argument(help="The edited model, or the base model that the delta was made for.")],
    tuned: Annotated[str, typer.Argument(help="The model after fine-tuning, adapters merged.")],
    delta: Annotated[Path, typer.Option("--edit", metavar="DELTA", help="File written by `indelible edit`.")],
    facts: Annotated[Path | None, typer.Option(help="Edited facts to ask; by default all of the delta's.")] = None,
    schema: Schema = None,
    columns: Columns = None,
    intrinsic: Annotated[
        Path | None,
        typer.Option(help=f"Facts from pre-training; by default {N_INTRINSIC} built-in ones that the model answers."),
    ] = None,
    mask_forecast: Annotated[
        bool, typer.Option("--mask-forecast", help="Also say what each freeze mask would have kept.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the built-in facts' draw and of the bootstrap.")] = 0,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for mixtures.parquet and drift.parquet.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Find out where fine-tuning lost facts: mix edited and tuned weights, group by group, and ask each mixture.

    Every group of weights gets its Shapley share of the loss. Nothing is trained: with five groups, the facts' own
    prompts are asked 32 times. Beside the shares stands how far the edited memories' keys and outputs turned, and the
    state that the answer is read from.
    """
    if out is not None and out.is_file():
        raise StoreError(f"{out} is a file.", "Give a folder.")
    given = {name: _read(file, schema, columns) for name, file in (("edited", facts), ("intrinsic", intrinsic))}

    from indelible.cli.display import counting
    from indelible.edits.deltas.delta import Edit
    from indelible.models.layout import find_layout
    from indelible.models.load import load
    from indelible.study.run.explanations import explain_loss
    from indelible.why import shares as analysis
    from indelible.why.drift_summary import drift_summary

    edit = Edit.load(delta)
    asked = _with_new_objects(edit.facts if given["edited"] is None else given["edited"])
    loaded = load(edited)
    after = _weights(loaded, tuned)
    layout = find_layout(loaded.model)
    with ExitStack() as stack:
        _put_in(stack, edit, loaded)
        _check_success(loaded, asked, edit.context)
        known = _known(loaded, asked, seed, edit.context) if given["intrinsic"] is None else given["intrinsic"]
        progress = stack.enter_context(counting("asking"))
        found = explain_loss(loaded.model, loaded.tokenizer, layout, edit, asked, known, after, progress=progress)
    for table in (found.mixtures, found.drift):
        table.insert(0, "arm", tuned)
        table.insert(1, "seed", 0)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            found.write(out)
        except OSError as error:
            raise StoreError(f"{out} cannot be written: {error.strerror}.", "Check the folder and its space.") from None
    lost = analysis.shares(found.mixtures, seed=seed)
    nats = analysis.shares(found.mixtures, of="log_prob", seed=seed)
    masks = analysis.mask_forecast(found.mixtures, seed=seed) if mask_forecast else None
    drift = drift_summary(found.drift, seed=seed)
    if as_json:
        tables = {"shares": lost, "log_prob": nats, "drift": drift, "masks": masks}
        shown = {name: _records(table) for name, table in tables.items() if table is not None}
        typer.echo(json.dumps({"retention": _retention(found.mixtures), **shown}, indent=2))
        return
    _show(found.mixtures, lost, nats, drift, masks)
    if out is not None:
        typer.echo(f"Every mixture: {out / 'mixtures.parquet'}, every fact's drift: {out / 'drift.parquet'}")


def _read(file: Path | None, schema: str | None, columns: list[str] | None) -> list[Fact] | None:
    return None if file is None else read_file(file, schema, columns)


def _with_new_objects(facts: list[Fact]) -> list[Fact]:
    for fact in facts:
        if fact.new_object is None:
            raise FactsError(f"The fact {fact.id!r} has no new object.", "Give edited facts, or leave --facts out.")
    return facts


def _weights(edited: LoadedModel, name: str) -> dict[str, Tensor]:
    """The tuned model's weights on the processor; the model itself is let go."""
    from indelible.models.load import load

    weights = {
        path: weight.detach()
        for path, weight in load(name, device="cpu").model.named_parameters(remove_duplicate=False)
    }
    for path, _ in edited.model.named_parameters():
        if path not in weights:
            raise ModelError(
                f"The tuned model {name!r} has no {path!r}, which {edited.name!r} has.",
                "Give two models of one architecture, adapters merged.",
            )
    return weights


def _put_in(stack: ExitStack, edit: Edit, loaded: LoadedModel) -> None:
    """See to it that the model holds the edit while the stack is open."""
    from indelible.edits.deltas.weights import WeightUpdate

    if not isinstance(edit, WeightUpdate):
        stack.enter_context(edit.installed(loaded.model))
        return
    state = edit.presence(loaded.model).state
    if state == "absent":
        stack.enter_context(edit.applied(loaded.model))
    elif state != "exact":
        raise EditError(
            f"{loaded.name!r} holds the delta neither as the edit left it nor not at all: {state}.",
            "Give the edited model as it was before fine-tuning, or the base model.",
        )


def _check_success(loaded: LoadedModel, facts: Sequence[Fact], context: str) -> None:
    from indelible.care.verify import verify_facts
    from indelible.cli.display import counting

    with counting("asking the edited model") as progress:
        found = verify_facts(loaded.model, loaded.tokenizer, facts, context=context, progress=progress)
    if not any(one.state == "present" for one in found):
        raise FactsError(
            f"None of the {len(facts)} edited facts succeeds in the edited model, so there is no loss to explain.",
            "Give the facts of this delta, or a firmer edit (`indelible verify` shows what is left of each).",
        )


def _known(loaded: LoadedModel, edited: Sequence[Fact], seed: int, context: str) -> list[Fact]:
    """Built-in facts that the edited model answers, none about an edited subject."""
    from indelible.cli.display import counting
    from indelible.exam.exam import known_facts
    from indelible.facts.choose import in_turns
    from indelible.facts.world import world_facts

    subjects = {fact.subject for fact in edited}
    candidates = [fact for fact in in_turns(world_facts(), seed) if fact.subject not in subjects]
    with counting("looking for facts that the model knows") as progress:
        return known_facts(
            loaded.model, loaded.tokenizer, candidates, enough=N_INTRINSIC, context=context, progress=progress
        )


def _retention(mixtures: pd.DataFrame) -> dict[str, dict[str, int]]:
    """By fact set: facts asked, those that succeed in the edited model, and those of them that do in the tuned one."""
    names = mixtures["mixture"].unique()
    whole = max(names, key=lambda name: 0 if name == "none" else 1 + name.count("+"))
    found = {}
    for fact_set, rows in mixtures.groupby("fact_set"):
        table = rows.pivot(index="fact_id", columns="mixture", values="success").astype(bool)
        kept = table["none"] & table[whole]
        counts = {"facts": len(table), "edited": int(table["none"].sum()), "tuned": int(kept.sum())}
        found[str(fact_set)] = counts
    return found


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON takes them: no NaN."""
    records = table.drop(columns=["arm", "seeds"], errors="ignore").astype(object)
    return [
        {str(key): None if value is None or value != value else value for key, value in record.items()}
        for record in records.where(records.notna(), None).to_dict("records")
    ]


def _show(
    mixtures: pd.DataFrame, lost: pd.DataFrame, nats: pd.DataFrame, drift: pd.DataFrame, masks: pd.DataFrame | None
) -> None:
    for fact_set, counts in _retention(mixtures).items():
        typer.echo(
            f"{fact_set} facts: {counts['edited']} of {counts['facts']} before tuning, {counts['tuned']} of them after"
        )
    typer.echo()
    _show_shares(lost, nats)
    typer.echo()
    _show_drift(drift)
    if masks is not None:
        typer.echo()
        _show_masks(masks)


def _show_shares(lost: pd.DataFrame, nats: pd.DataFrame) -> None:
    """A line per group: what its tuned weights cost (or saved) in points of retention and in log-probability."""
    from indelible.cli.display import show_table
    from indelible.numbers.words import points, points_with_interval
    from indelible.why.shares import LABELS

    sets = [name for name in ("edited", "intrinsic") if name in set(lost["fact_set"])]
    of_sets = {name: list(zip(_rows(lost, name), _rows(nats, name), strict=True)) for name in sets}
    lines = []
    for figures in zip(*of_sets.values(), strict=True):
        kept = [
            points_with_interval(_number(-one["share"]), _number(-one["high"]), _number(-one["low"]))
            for one, _ in figures
        ]
        lines.append([LABELS[figures[0][0]["group"]], *kept, *(_nats(-fall["share"]) for _, fall in figures)])
    totals = [[sum(pair[place]["share"] for pair in of_sets[name]) for name in sets] for place in (0, 1)]
    points_lost, nats_lost = totals
    lines.append(
        ["all of them", *(points(_number(-value)) for value in points_lost), *(_nats(-value) for value in nats_lost)]
    )
    headings = [f"{name}: points [95%]" for name in sets] + [f"{name}: nats" for name in sets]
    show_table(["tuned weights", *headings], lines)
    typer.echo("Points of retention, and mean log-probability of the answer, over facts that had succeeded.")


def _show_drift(drift: pd.DataFrame) -> None:
    """A line per edited layer, and one for what is read out."""
    from indelible.cli.display import show_table
    from indelible.why.drift_summary import ENDS, LABELS

    cells = {
        (line["quantity"], line["layer"]): _turned(line["cosine"], line["norm_change"])
        for line in drift.dropna(subset=["layer"]).to_dict("records")
    }
    layers = sorted({layer for _, layer in cells})
    quantities = [name for name in LABELS if name not in ENDS]
    if layers:
        lines = [[str(layer), *(cells[quantity, layer] for quantity in quantities)] for layer in layers]
        show_table(["layer", *(LABELS[name] for name in quantities)], lines)
    ends = {line["quantity"]: line for line in drift[drift["layer"].isna()].to_dict("records")}
    said = [f"{LABELS[name]} {_turned(ends[name]['cosine'], ends[name]['norm_change'])}" for name in ENDS]
    typer.echo("; ".join(said))
    typer.echo("Cosine of edited and tuned, and change of the norm: means over edited facts.")


def _show_masks(masks: pd.DataFrame) -> None:
    from indelible.cli.display import show_table
    from indelible.numbers.words import MISSING, percent, points_with_interval

    lines = []
    for line in masks.to_dict("records"):
        low, high = _number(line["low"]), _number(line["high"])
        interval = MISSING if low is None else f"{percent(low)} to {percent(high)}"
        gain = points_with_interval(line["gain"], _number(line["gain_low"]), _number(line["gain_high"]))
        lines.append([line["mask"], percent(line["retention_edited"]), interval, gain])
    show_table(["freeze mask", "edited kept", "95%", "gain, points [95%]"], lines)
    typer.echo("A forecast: training with the mask would also move otherwise what it leaves free.")


def _rows(table: pd.DataFrame, fact_set: str) -> list[dict[Any, Any]]:
    return table[table["fact_set"] == fact_set].to_dict("records")


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nats(value: float) -> str:
    return _signed(f"{round(value, 2) + 0.0:+.2f}")


def _turned(cosine: float, norm_change: float) -> str:
    return _signed(f"{cosine:.3f} ({round(norm_change, 3) + 0.0:+.1%})")


def _signed(text: str) -> str:
    """With the minus sign that the other figures have."""
    from indelible.numbers.words import MINUS

    return text.replace("-", MINUS)
