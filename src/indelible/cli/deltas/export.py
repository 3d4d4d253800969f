"""``indelible export``: a delta in a format that other tools load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.options import AsJson, Trust, model_of
from indelible.cli.terminal import say

EXAMPLES = (
    "Examples:",
    "`indelible export deltas/mine --peft adapter`",
    "`indelible export deltas/mine --base path/to/model --peft adapter --rank 64`",
)


def export(
    delta: Annotated[Path, typer.Argument(help="File written by `indelible edit`.")],
    peft: Annotated[Path, typer.Option(help="New folder for a LoRA adapter of peft.")],
    base: Annotated[
        str | None, typer.Option(help="The model that the delta was made for, where its own name for it does not load.")
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Of the adapter, at most, whatever of the edit that leaves out.")
    ] = None,
    as_json: AsJson = False,
    trust: Trust = False,
) -> None:
    """Write a delta as a LoRA adapter that peft and vLLM load beside the unedited model, with a model card.

    Edits of the closed-form editors and of lora have a low rank, and the adapter is the edit: its logits are compared
    with the edited model's (1e-3, float32) before the folder stands. What fine-tuning changes (ft-m) has none; a rank
    has to be given for it, and what is left out is told. Biases and norms are not what LoRA changes.
    """
    from indelible.care import export as care
    from indelible.edits.deltas.delta import Edit
    from indelible.watching import counting

    edit = Edit.load(delta)
    name = base if base is not None or not trust else edit.manifest.model.name
    found = care.export(edit, peft, model=None if name is None else model_of(name, trust), rank=rank, jobs=counting)
    if as_json:
        say(json.dumps({"adapter": str(peft), **found.record()}, indent=2))
        return
    answered, facts = found.answered
    lost = max(found.errors.values())
    say(f"Adapter: {peft} (rank {found.rank}; peft.PeftModel.from_pretrained loads it)")
    say(f"Logits within {found.logits:.1g} of the edited model's" + (f"; {lost:.1%} left out" if lost else ""))
    say(f"{answered} of {facts} are answered with the adapter")
    if found.vllm_rank is None:
        say("vLLM takes no adapter of this rank: give --rank 512 or less.")
    else:
        say(f"vLLM: --enable-lora --max-lora-rank {found.vllm_rank}")
