"""``indelible advise``: which protection keeps the edits while a model is fine-tuned on one's own data."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli.completing import editors, models, objectives, protections
from indelible.cli.options import FORMAT_HELP, AsJson, Trust
from indelible.cli.terminal import say
from indelible.numbers.words import MINUS, MISSING, counted, duration, in_points, percent
from indelible.progress import Span
from indelible.registry import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from indelible.study.advice.advise import Advice
    from indelible.study.advice.pilot import Sought

EXAMPLES = (
    "Examples:",
    "`indelible advise smollm2-135m --facts my.jsonl --data train.jsonl --minutes 20`",
    "`indelible advise smollm2-135m --delta deltas/mine --data chats.jsonl --objective instruct"
    " --set tuning.learning_rate=2e-5 --set tuning.tuner=lora --dry-run`",
    '`indelible advise gpt2 --facts my.csv --data text --protect replay --protect "{replay: {share: 0.4}}"`',
    "The answer is a name, its price, and the lines to use it; or that the pilot cannot tell, and what it would need."
    " It is as good as the pilot is like your training: give its learning rate, batch and tuner with --set.",
    *FORMAT_HELP,
)


def names() -> Sequence[str]:
    """What the help says about names."""
    return (
        f"Protections: {', '.join(listed('indelible.tuning.protections', 'indelible.protections'))}.",
        f"Objectives: {', '.join(listed('indelible.tuning.objectives', 'indelible.objectives'))}.",
        f"Editors: {', '.join(listed('indelible.edits.editors', 'indelible.editors'))}.",
    )


def advise(
    model: Annotated[
        str, typer.Argument(help="The unedited model: a bundled name, a folder or a hub id.", autocompletion=models)
    ],
    data: Annotated[
        str, typer.Option(help="What to train on: a file, a data set of the hub, or the name of a built-in task.")
    ],
    facts: Annotated[
        Path | None, typer.Option(help="The facts to be edited, with new objects; see below. By default the delta's.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="What is learned of it; see below.", autocompletion=objectives)
    ] = "text",
    editor: Annotated[str, typer.Option(help="What edits the facts; see below.", autocompletion=editors)] = "memit",
    delta: Annotated[
        Path | None, typer.Option(help="An edit that `indelible edit` made, in place of --editor.")
    ] = None,
    protect: Annotated[
        list[str] | None,
        typer.Option(
            help="A candidate: a protection as in a study, a mask such as up-to-edited, or both joined by a +."
            " Repeatable; by default all protections that fit, up-to-edited, and up-to-edited+replay.",
            autocompletion=protections,
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(help="What the pilot may take on this machine, about.")] = 20,
    price: Annotated[
        float, typer.Option(help="Share by which the downstream figure may be worse than without protection.")
    ] = 0.02,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the pilot's study: say how you train."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder; runs/advise by default.")] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Let a run folder of other settings take these; rerun only what changed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the candidates and what the pilot costs.")] = (
        False
    ),
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Say which protection keeps edits while a model is fine-tuned on your data, and what it costs.

    A pilot takes your edit, or edits some of your facts, trains for a short while without a protection and with each
    candidate, asks the facts again, and names the cheapest protection that is shown to keep more.
    """
    from indelible.study.advice.advise import FOLDER, advise_on
    from indelible.study.advice.pilot import Sought

    sought = Sought(
        model=model,
        facts=facts,
        data=data,
        objective=objective,
        editor=editor,
        delta=delta,
        protections=tuple(protect or ()),
        minutes=minutes,
        allowed=price,
        settings=tuple(settings or ()),
        trust_remote_code=trust,
    )
    folder = out or FOLDER
    if dry_run:
        _show_plan(sought, folder, as_json)
        return
    from indelible.watching import watching

    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext(), watching() as watcher:
        advice = advise_on(sought, folder, update=update, watcher=watcher)
    if as_json:
        say(json.dumps(advice.record(), indent=2))
    else:
        _show(advice)


def _show_plan(sought: Sought, folder: Path, as_json: bool) -> None:
    from indelible.study.advice.pilot import Size
    from indelible.study.design.mask_preview import fetches_nothing

    size, speed = sought.begun(folder), None
    if size is None and fetches_nothing(sought.model):
        speed = sought.speed()
        size = sought.fitting(speed)
    settings = sought.study(size or sought.sizes()[0]).as_dict()  # what is wrong with them is said
    cost = None if size is None or speed is None else sought.cost(size, speed)
    if as_json:
        known = None if size is None else asdict(Size.of(settings))
        seconds = None if cost is None else cost.seconds
        say(json.dumps({"candidates": sought.candidates, "size": known, "seconds": seconds}, indent=2))
        return
    say(f"Candidates, beside plain training and an unedited control: {', '.join(sought.candidates)}.")
    if size is None:
        say(f"How large the pilot is, is known once {sought.model} has been fetched.")
        return
    size = Size.of(settings)
    edits, seeds = counted(size.edits, "edit"), counted(size.seeds, "seed")
    say(f"Pilot: {edits} of {sought.editable} that are possible together, {size.steps} steps, {seeds}.")
    say(f"It stands in {folder}." if cost is None else cost.in_words(Span.about(cost.seconds)))


def _show(advice: Advice) -> None:
    from indelible.cli.display import show_table

    show_table(*_table(advice.table))
    say(
        "Gains are over plain training, in points with 95% intervals; p is corrected for all candidates; time counts"
        " what is prepared before the first step, which tells less in a longer run."
    )
    say(f"Advice: {advice.choice or 'none'}. {advice.why}")
    for lines in filter(None, (advice.yaml, advice.python)):
        say("\n".join(f"    {line}" for line in lines.splitlines()))
    say(f"Report: {advice.folder / 'report.html'}  ({duration(advice.seconds)})")


def _table(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for the screen."""
    from indelible.numbers.estimate import Estimate
    from indelible.numbers.words import p_value

    kept = {
        "retention_edited": "edits kept",
        "retention_paraphrase": "other wordings",
        "retention_intrinsic": "intrinsic",
    }
    shown = {name: heading for name, heading in kept.items() if table[name].notna().any()}
    columns = ["protection", *(part for heading in shown.values() for part in (heading, "gain"))]
    rows = []
    for line in table.astype(object).where(table.notna(), None).to_dict("records"):
        row = [str(line["protect"])]
        for name in shown:
            value, low, high = (line.get(f"gain_{name}{end}") for end in ("", "_low", "_high"))
            row += [percent(line[name]), in_points(Estimate(value, low, high))]
        price, low, high, time = (line.get(name) for name in ("price", "price_low", "price_high", "time"))
        paid = MISSING if price is None else f"{price:+.1%}" + ("" if low is None else f" [{low:+.1%}, {high:+.1%}]")
        row += [p_value(line.get("p")), paid.replace("-", MINUS)]
        rows.append([*row, MISSING if time is None else f"{time:+.0%}", str(line["state"])])
    return [*columns, "p", "price", "time a step", "verdict"], rows
