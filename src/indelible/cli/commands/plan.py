"""``indelible plan``: how many facts and seeds would show a gap of a given size."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.options import AsJson
from indelible.errors import ConfigError, StoreError
from indelible.numbers.words import counted

if TYPE_CHECKING:
    from indelible.numbers.power import Plan

EXAMPLES = (
    "Examples:",
    "`indelible plan --gap 0.1` # for a gap of ten points",
    "`indelible plan --gap 0.05 --from runs/quick` # with the rates and the spread of a finished run",
)
EDITS = (10, 24, 50, 100, 200, 400)
SEEDS = (1, 3, 5, 10)


def plan(
    gap: Annotated[float, typer.Option(help="The gap to show: intrinsic less edited retention, e.g. 0.1.")],
    retention: Annotated[
        float | None, typer.Option(min=0, max=1, help="Retention of intrinsic facts.  [default: 0.7]")
    ] = None,
    intrinsic_per_edit: Annotated[
        float | None, typer.Option(min=0.01, help="Intrinsic facts for each edit.  [default: 2.5]")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Seeds to name the facts for.  [default: 3]")] = None,
    spread: Annotated[
        float | None, typer.Option(min=0, help="Standard deviation of the gap between seeds.  [default: 0.03]")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Take what is not given from a finished run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how many working edits per seed, and seeds, would show a gap: its 95% interval then excludes zero."""
    from indelible.numbers.power import USUAL_POWER, Plan, facts_needed, power_table

    given = {"retention": retention, "intrinsic_per_edit": intrinsic_per_edit, "seeds": seeds, "spread": spread}
    typed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    chosen = replace(Plan(gap) if run is None else _from_run(run, gap), **typed)
    kept = chosen.retention - chosen.gap
    if chosen.gap == 0 or not (0 < chosen.retention < 1 and 0 <= kept <= 1):
        of_run = run is not None and retention is None
        source = f"the {chosen.retention:g} of {run}" if of_run else f"--retention {chosen.retention:g}"
        raise ConfigError(
            f"With {source}, --gap {chosen.gap:g} leaves edits a retention of {kept:g}.",
            "Give a --retention between 0 and 1, and a gap other than 0 that leaves a fraction as well.",
        )
    numbers = sorted({*SEEDS, chosen.seeds})
    table = power_table(chosen, EDITS, numbers)
    needed = {number: facts_needed(replace(chosen, seeds=number)) for number in numbers}
    if as_json:
        content = {"plan": asdict(chosen), "power": table.to_dict("records"), "edits_for_80_percent": needed}
        typer.echo(json.dumps(content, indent=2))
        return
    from indelible.cli.display import show_table

    names = [counted(number, "seed") for number in numbers]
    lines = [[str(edits), *(f"{chance:.0%}" for chance in part["power"])] for edits, part in table.groupby("edits")]
    lines.append([f"for {USUAL_POWER:.0%}", *("never" if needed[one] is None else str(needed[one]) for one in numbers)])
    typer.echo(
        f"Gap {chosen.gap:g}: intrinsic facts keep {chosen.retention:.3g}, edits {kept:.3g}; "
        f"{chosen.intrinsic_per_edit:.3g} intrinsic facts per edit; the gap varies by {chosen.spread:.2g} over seeds."
    )
    show_table(["edits per seed", *names], lines)
    enough, alone = needed[chosen.seeds], " One seed says nothing about others, whatever its interval."
    found = "no number of edits shows" if enough is None else f"{enough} working edits per seed show"
    more = ": take more seeds" if enough is None else ""
    said = f"With {counted(chosen.seeds, 'seed')}, {found} this gap in four of five studies{more}."
    typer.echo(said + alone * (chosen.seeds == 1))


def _from_run(folder: Path, gap: float) -> Plan:
    from indelible.files import read_table
    from indelible.numbers.power import expected

    if not (file := folder / "facts.parquet").is_file():
        raise StoreError(f"{folder} holds no finished study: facts.parquet is missing.", "Run `indelible study` first.")
    return expected(read_table(file), gap)
