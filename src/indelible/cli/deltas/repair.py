"""``indelible repair``: edit again what fine-tuning has lost of an edit."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from indelible.cli.costing import DryRun, speed_of, tell
from indelible.cli.options import AsJson, Force, Trust, delta_file, model_of
from indelible.cli.terminal import say
from indelible.numbers.words import counted

EXAMPLES = (
    "Examples:",
    "`indelible repair my-fine-tuned-model --delta deltas/mine -o deltas/repair`",
    "`indelible repair my-fine-tuned-model --delta deltas/mine --data train.jsonl -o deltas/repair`",
    "`indelible apply my-fine-tuned-model deltas/repair -o repaired`",
)


def repair(
    tuned: Annotated[
        str, typer.Argument(help="The model after fine-tuning: a folder (of an adapter alone, too) or a hub id.")
    ],
    delta: Annotated[Path, typer.Option(help="File written by `indelible edit`, which was in the model before.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="File for the new delta, .safetensors where no suffix is given.")
    ],
    data: Annotated[
        str | None,
        typer.Option(help="What the model was tuned on: a file with a row each, or a data set of the hub; preserved."),
    ] = None,
    editor: Annotated[str | None, typer.Option(help="Another editor than the one that made the delta.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another option of the editor than before. Repeatable."),
    ] = None,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Ask a tuned model what it still answers of a delta, and edit again what it has lost.

    The model itself is not changed: what comes out is a delta for it, which `indelible apply`, `verify` and `revert`
    take as any other. It is made by the editor of the first delta with its options, while the keys of what still works,
    of ordinary text and of the training data (`--data`) are preserved; then the model is asked again, up to three
    times. Where nothing was lost, nothing is written.
    """
    from indelible.care.repair import ROUNDS
    from indelible.care.repair import repair as mend
    from indelible.cli.display import show_table
    from indelible.edits.deltas.adapter import read_delta
    from indelible.edits.mending import Mending
    from indelible.models.load import opened
    from indelible.study.design.config import assign
    from indelible.study.run.cost import asking, edit_cost
    from indelible.tuning.own_data.data import row_texts
    from indelible.tuning.settings import DataSettings
    from indelible.validation import validated
    from indelible.watching import counting

    out = delta_file(out, force)
    options: dict[str, Any] = {}
    for setting in settings or ():
        assign(options, setting)
    took: dict[str, float] = {}
    loaded, made = opened(model_of(tuned, trust)), read_delta(delta)
    how, speed, count = Mending.of(made, editor, **options), speed_of(loaded), len(made.facts)
    low, again = asking(count, speed).seconds, edit_cost(how.editor, count * (1 + how.paraphrases), speed).seconds
    what = f"{counted(count, 'fact')} asked, and those that are lost edited again, up to {ROUNDS} times"
    tell(f"{what}, beside covariances, which are kept", low, 2 * low + ROUNDS * (low + again), dry_run)
    if dry_run:
        return
    found = mend(
        loaded,
        made,
        editor,
        data=() if data is None else row_texts(validated(DataSettings, {"source": data}, "data")),
        out=out,
        jobs=partial(counting, took=took),
        **options,
    )
    if as_json:
        written = {"delta": None} if found.edit is None else {"delta": str(out), "seconds": round(took["editing"], 1)}
        say(json.dumps({**written, **found.record()}, indent=2))
        return
    pairs = list(zip(found.before, found.after, strict=True))
    rows = [
        [
            *(now.fact.text(), str(now.fact.new_object), then.state, now.state),
            *(f"{now.answer.probability:.3f}", " ".join(now.answer.generated.split())[:40]),
        ]
        for then, now in pairs
        if not then.state == now.state == "present"
    ]
    if rows:
        show_table(["fact", "new object", "tuned", "repaired", "probability", "the model says"], rows)
    was, are = (sum(one.state == "present" for one in side) for side in (found.before, found.after))
    say(f"{was} of {counted(len(pairs), 'fact')} answered by the tuned model, {are} under the repair")
    for one in found.missing:
        say(f"Not repaired: {one.fact.text()} {one.fact.new_object} ({found.why(one)})")
    if found.edit is None:
        say("Nothing was lost; nothing is written.")
        return
    say(f"{counted(len(found.edit.facts), 'fact')} edited again in {counted(found.rounds, 'round')}")
    say(f"Delta: {out} ({out.stat().st_size / 1e6:.1f} MB)")
