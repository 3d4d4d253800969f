"""``indelible plan``: the smallest effects that a design shows, and how many facts and seeds a given gap needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.cli.options import AsJson
from indelible.cli.terminal import say
from indelible.errors import ConfigError, StoreError
from indelible.numbers.words import counted

if TYPE_CHECKING:
    import pandas as pd

    from indelible.numbers.power import Plan

EXAMPLES = (
    "Examples:",
    "`indelible plan` # the smallest effects that studies of several sizes show",
    "`indelible plan --gap 0.1` # how many edits and seeds show a gap of ten points",
    "`indelible plan --gap 0.05 --from runs/quick` # with the rates and the spread of a finished run",
)
EDITS = (10, 24, 50, 100, 200, 400)
SEEDS = (1, 3, 5, 10)


def plan(
    gap: Annotated[
        float | None, typer.Option(help="A gap to show: intrinsic less edited retention, e.g. 0.1.", show_default=False)
    ] = None,
    retention: Annotated[
        float | None, typer.Option(min=0, max=1, help="Retention of intrinsic facts.  [default: 0.7]")
    ] = None,
    intrinsic_per_edit: Annotated[
        float | None, typer.Option(min=0.01, max=1e6, help="Intrinsic facts for each edit.  [default: 2.5]")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Seeds to name the facts for.  [default: 3]")
    ] = None,
    spread: Annotated[
        float | None, typer.Option(min=0, max=1, help="Standard deviation of the gap between seeds.  [default: 0.03]")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--from", metavar="RUN", help="Take what is not given from a finished run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a study can show: the smallest extra loss of edits at equal start and the smallest gap whose 95%
    intervals exclude zero in four of five studies; with --gap, how many working edits and seeds that gap needs."""
    from indelible.numbers.power import USUAL_LOSS, Plan, detectable_gap, detectable_loss, expected, noise_of

    rows = None if run is None else _rows(run)
    given = {"retention": retention, "intrinsic_per_edit": intrinsic_per_edit, "seeds": seeds, "spread": spread}
    typed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    chosen = replace(Plan(gap or 0.0) if rows is None else expected(rows, gap or 0.0), **typed)
    of_run = None if rows is None else noise_of(rows)
    noise = of_run or USUAL_LOSS
    kept = chosen.retention - chosen.gap
    if gap is not None and (gap == 0 or not (0 < chosen.retention < 1 and 0 <= kept <= 1)):
        of_run_itself = run is not None and retention is None
        source = f"the {chosen.retention:g} of {run}" if of_run_itself else f"--retention {chosen.retention:g}"
        raise ConfigError(
            f"With {source}, --gap {gap:g} leaves edits a retention of {kept:g}.",
            "Give a --retention above 0 and below 1, and a gap other than 0 that leaves a fraction as well.",
        )
    numbers = sorted({*SEEDS, chosen.seeds})
    smallest = [
        {
            "edits": edits,
            "seeds": number,
            "extra_loss": detectable_loss(noise, edits, number),
            "gap": detectable_gap(replace(chosen, seeds=number), edits),
        }
        for edits in EDITS
        for number in numbers
    ]
    if as_json:
        content = {"detectable": smallest, "noise": asdict(noise), "plan": asdict(chosen)}
        say(json.dumps(content | (_power(chosen, numbers) if gap is not None else {}), indent=2))
        return
    where = f"in {run}" if of_run else "where nothing else is known"
    say(
        f"The smallest effects that four of five studies show, at 5% two-sided. Extra loss of edits at equal start, in "
        f"nats of log-odds: one edit varies it by {noise.of_edit:.2g}, seeds by {noise.of_seed:.2g}, {where}."
    )
    _show(numbers, [(one["edits"], f"{one['extra_loss']:.2f}") for one in smallest])
    say(
        f"Gap in points, where intrinsic facts keep {chosen.retention:.3g}; {chosen.intrinsic_per_edit:.3g} intrinsic "
        f"facts per edit; the gap varies by {chosen.spread:.2g} over seeds."
    )
    _show(numbers, [(one["edits"], _points(one["gap"])) for one in smallest])
    if gap is not None:
        _show_power(chosen, numbers)


def _power(plan: Plan, seeds: Sequence[int]) -> dict[str, Any]:
    """Power by edits and seeds, and by seeds the edits that the plan's gap needs."""
    from indelible.numbers.power import facts_needed, power_table

    needed = {number: facts_needed(replace(plan, seeds=number)) for number in seeds}
    return {"power": power_table(plan, EDITS, seeds).to_dict("records"), "edits_for_80_percent": needed}


def _show_power(plan: Plan, seeds: Sequence[int]) -> None:
    from indelible.numbers.power import USUAL_POWER

    found = _power(plan, seeds)
    needed = found["edits_for_80_percent"]
    say(
        f"The chance to show a gap of {plan.gap:g}: intrinsic facts keep {plan.retention:.3g}, edits "
        f"{plan.retention - plan.gap:.3g}."
    )
    cells = [(line["edits"], f"{line['power']:.0%}") for line in found["power"]]
    last = [(f"for {USUAL_POWER:.0%}", "never" if needed[one] is None else str(needed[one])) for one in seeds]
    _show(seeds, [*cells, *last])
    enough, alone = needed[plan.seeds], " One seed says nothing about others, whatever its interval."
    number = "no number of edits shows" if enough is None else f"{enough} working edits per seed show"
    more = ": take more seeds" if enough is None else ""
    said = f"With {counted(plan.seeds, 'seed')}, {number} this gap in four of five studies{more}."
    say(said + alone * (plan.seeds == 1))


def _show(seeds: Sequence[int], cells: Sequence[tuple[Any, str]]) -> None:
    """A table of edits by seeds, from its cells in order of rows."""
    from indelible.cli.display import show_table

    width = len(seeds)
    rows = [cells[place : place + width] for place in range(0, len(cells), width)]
    lines = [[str(row[0][0]), *(text for _, text in row)] for row in rows]
    show_table(["edits per seed", *(counted(number, "seed") for number in seeds)], lines)


def _points(gap: Any) -> str:
    return "none" if gap is None else f"{gap * 100:.1f}"


def _rows(folder: Path) -> pd.DataFrame:
    from indelible.report.results import read_results

    if not (folder / "facts.parquet").is_file():
        raise StoreError(f"{folder} holds no finished study: facts.parquet is missing.", "Run `indelible study` first.")
    return read_results(folder)["facts"]
