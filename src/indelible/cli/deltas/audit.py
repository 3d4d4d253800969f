"""``indelible audit``: what is left of edits in any checkpoint, and is the rest of the model whole?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indelible.cli.costing import DryRun, questions_about, sought, speed_of, tell
from indelible.cli.options import (
    AsJson,
    Columns,
    Junit,
    Schema,
    Trust,
    check_file,
    model_of,
    read_file,
    write_cases,
)
from indelible.cli.terminal import say
from indelible.documents import LARGEST

if TYPE_CHECKING:
    from indelible.care.audit import Audit

EXAMPLES = (
    "Examples:",
    "`indelible audit my-fine-tuned-model --edited edited --base smollm2-135m --facts facts.jsonl`",
    "`indelible audit my-fine-tuned-model --base smollm2-135m --delta deltas/mine --dry-run` # says what it takes",
    "`indelible audit my-adapter --base smollm2-135m --delta deltas/mine --require 0.9 --junit edits.xml`",
)
SHOWN = 40


def audit(
    tuned: Annotated[str, typer.Argument(help="The model as it is now: a name, a folder, a hub id, or an adapter.")],
    edited: Annotated[str | None, typer.Option(help="The model right after the edit, made with whatever tool.")] = None,
    base: Annotated[str | None, typer.Option(help="The model before the edit.")] = None,
    facts: Annotated[Path | None, typer.Option(help="The edited facts; by default those of the delta.")] = None,
    delta: Annotated[Path | None, typer.Option(help="File written by `indelible edit`, or a LoRA adapter.")] = None,
    intrinsic: Annotated[
        Path | None, typer.Option(help="Facts that the model knew of old; by default up to 60 built-in ones.")
    ] = None,
    schema: Schema = None,
    columns: Columns = None,
    require: Annotated[float, typer.Option(min=0, max=1, help="Share of the edits that must be there.")] = 0.9,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST, help="Seed of the built-in facts' draw.")] = 0,
    junit: Junit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Ask up to three checkpoints about the same facts, and tell an edit that is gone from a model that is damaged.

    Any tool may have made them; an adapter is merged into its model. With a base and a delta, the edited model is made
    of them. With the tuned model alone, only what it answers now can be told. The exit code is 1 where fewer of the
    edits than `--require` are there.
    """
    from indelible.care import audit as care
    from indelible.edits.deltas.adapter import read_delta
    from indelible.models.load import opened
    from indelible.numbers.words import counted
    from indelible.study.run.cost import WORDINGS_ASKED
    from indelible.watching import counting

    if junit is not None:
        check_file(junit)
    given, known = (None if file is None else read_file(file, schema, columns) for file in (facts, intrinsic))
    put = None if delta is None else read_delta(delta)
    now = opened(model_of(tuned, trust))
    made = edited is not None or (base is not None and put is not None)
    models = 1 + (base is not None) + made
    asked = questions_about(given or (put.facts if put is not None else ()), "edited")
    looked = 0
    if models > 1:  # what the tuned model alone knew of old is not asked
        asked += care.N_INTRINSIC * (1 + WORDINGS_ASKED) if known is None else questions_about(known, "intrinsic")
        looked = sought(care.N_INTRINSIC, known)
    seconds = (models * asked + looked) * speed_of(now).question
    tell(f"{counted(models, 'model')}, {counted(asked, 'question')} each", seconds, seconds, dry_run)
    if dry_run:
        return
    found = care.audit(
        now,
        given or (),
        edited=None if edited is None else model_of(edited, trust),
        base=None if base is None else model_of(base, trust),
        delta=put,
        intrinsic=known,
        required=require,
        seed=seed,
        jobs=counting,
    )
    if junit is not None:
        write_cases(junit, "indelible audit", found.cases())
    if as_json:
        say(json.dumps(found.record(), indent=2))
    else:
        _show(found)
    if not found.passes:
        raise typer.Exit(1)


def _show(found: Audit) -> None:
    from indelible.cli.display import show_table
    from indelible.numbers.measures import MEASURES
    from indelible.numbers.words import figure, percent

    phases = list(found.rows["phase"].unique())
    rows = [
        [one.fact.text(), str(one.fact.new_object), one.state]
        + [" ".join(one.said[phase].split())[:24] for phase in phases]
        for one in found.facts[:SHOWN]
    ]
    show_table(["fact", "new object", "state", *(f"{phase} says" for phase in phases)], rows)
    if len(found.facts) > SHOWN:
        say(f"{SHOWN} of {len(found.facts)} facts are shown; --json has all.")
    if found.estimates:
        figures = [(MEASURES.get(name), one) for name, one in found.estimates.items()]
        show_table(["measure", "95%"], [[measure.label, figure(one, measure)] for measure, one in figures])
    if found.moved is not None and found.moved.verdict in ("same", "broken"):
        say(f"Weights before tuning and now: {found.moved.in_words}")
    elif found.moved is not None:
        moved = sorted(found.moved.by_layer().items(), key=lambda one: -one[1])
        most = ", ".join(f"{layer} ({percent(share)})" for layer, share in moved[:3])
        say(f"Since before tuning, weights moved most in layers {most}.")
    if found.remains is not None:
        say(f"Of the delta {found.remains.share:.1%} are in the weights (projection; 100% all of it).")
    say(found.verdict)
