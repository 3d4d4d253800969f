"""A folder that holds an adapter of peft alone, as trainers save it, read as the model that it makes of its base."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from indelible.documents import read_json
from indelible.errors import ModelError
from indelible.files import written_path

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_TOKENIZER = "tokenizer_config.json"
_READ = 16
_NEAR = 1e-3
"""How far merging may move a logit, over the largest of them: a tied embedding that is adapted is moved twice."""


def is_adapter(folder: Path) -> bool:
    """Whether there is an adapter in a folder, and no model."""
    return (folder / SETTINGS).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """The name of the model that an adapter was trained on.

    Raises:
        ModelError: if the folder does not say it, or has no weights in safetensors.
    """
    settings = read_json(folder / SETTINGS, "adapter's settings", ModelError)
    name = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise ModelError(
            f"The adapter in {str(folder)!r} does not say which model it belongs to.",
            f"Name it as base_model_name_or_path in its {SETTINGS}, or merge it into its model and save that.",
        )
    if is_adapter(written_path(name, ModelError)):
        raise ModelError(
            f"The adapter in {str(folder)!r} names another adapter as its model, {name!r}.",
            "Merge that one first, and name what comes of it.",
        )
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"The adapter in {str(folder)!r} has no {WEIGHTS}.", "Save it with save_pretrained, as safetensors."
        )
    return name


def merged(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model with an adapter merged into it, in place, and the tokenizer that stands beside the adapter, if any.

    Where the adapter brings embeddings of more tokens than the model has, as after tokens were added, the model grows.

    Raises:
        ModelError: if the adapter does not fit the model, cannot be merged, or the merged model says other things than
            the model with the adapter does.
    """
    from peft import PeftModel

    embeddings: Any = model.get_input_embeddings()
    tokens = torch.arange(_READ, device=model.device)[None] % len(embeddings.weight)
    try:
        if (folder / _TOKENIZER).is_file():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        name = next(name for name, module in model.named_modules() if module is embeddings)
        if (rows := _rows(folder, name)) > len(embeddings.weight):
            model.resize_token_embeddings(rows, mean_resizing=False)
        adapted = PeftModel.from_pretrained(model, str(folder)).eval()
        with torch.no_grad():
            before = adapted(input_ids=tokens).logits
            made = adapted.merge_and_unload().eval()
            after = made(input_ids=tokens).logits
    except Exception as error:  # peft, torch and safetensors raise a dozen kinds for one user mistake
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".: ")
        raise ModelError(
            f"The adapter in {str(folder)!r} cannot be merged into its model: {reason}.",
            "Give an adapter whose weights can be merged, and the model that it was trained on.",
        ) from error
    if float((after - before).abs().max()) > _NEAR * float(before.abs().max()):
        raise ModelError(
            f"The adapter in {str(folder)!r} makes another model merged than unmerged.",
            "Does it adapt an embedding that is tied to the head? Train it without.",
        )
    return made, tokenizer


def _rows(folder: Path, name: str) -> int:
    """How many tokens the adapter's own input embeddings have, of the module of that name; 0 where it has none."""
    with safe_open(folder / WEIGHTS, "pt") as saved:
        for key in saved.keys():  # noqa: SIM118 -- it is no mapping
            if re.fullmatch(rf"base_model\.model\.{re.escape(name)}\.(base_layer\.)?weight", key):
                return int(saved.get_slice(key).get_shape()[0])
    return 0
