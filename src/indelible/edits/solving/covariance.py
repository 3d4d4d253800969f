"""The second moment of a memory's keys over ordinary text, or at certain subjects: what an edit should leave alone.

One streaming pass over the text serves all layers asked for and stops at the deepest. A few multiples of the key width
in tokens give about the edits that the papers' hours of Wikipedia give (arXiv 2506.04226). What comes of text is kept
on disk when the caller names a folder, under everything that it depends on: model, layer, module, and the rows of
tokens as they are read; matrices so wide that reading them back would take as long are not.

Left out are the first token of each row and special tokens. Attention rests there where it looks for nothing, and some
layers' states there are hundreds of times as large as any others: of the trace of SmolLM2-135M's second moment over
rows of 128 tokens, the first holds 98% at layer 11 and 0.1% at layer 7. No unit can be taken from such a trace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from indelible.edits.editor import Workbench
from indelible.edits.solving.keys import begins_with_a_sink, subject_keys
from indelible.edits.solving.texts import bare_row
from indelible.errors import EditError
from indelible.files import whole_file
from indelible.models.trace import by_row, capture, evaluating

_ROW_TOKENS = 128
_ROWS_PER_PASS = 8
_MOST_KEPT = 200_000_000
"""Bytes of a matrix on disk; at Llama-3.1-8B's key width of 14,336 one would have 800 million a layer."""


def second_moments(bench: Workbench, layers: Sequence[int], tokens: int) -> Mapping[int, Tensor]:
    """E[k k^T] of the inputs of each layer's MLP output projection, over so many tokens of the corpus.

    Returns:
        By layer, a ``(d, d)`` float32 matrix on the model's device, d the key width.

    Raises:
        EditError: if there is not enough text for a matrix of full rank.
    """
    memories = {layer: bench.layout.memory(layer) for layer in layers}
    width, cache = max(memory.key_width for memory in memories.values()), bench.cache
    if tokens < 2 * width:
        raise EditError(
            f"covariance_tokens is {tokens}, too few for {width} key dimensions.", f"Use at least {2 * width}."
        )
    rows = _pack(bench.tokenizer, bench.corpus, tokens)
    names = {layer: _cache_name(bench.fingerprint, layer, one.path, rows) for layer, one in memories.items()}
    kept = {} if cache is None else {layer: _kept(cache / name) for layer, name in names.items()}
    found = {layer: moment.to(bench.model.device) for layer, moment in kept.items() if moment is not None}
    missing = sorted(set(layers) - set(found))
    if missing:
        computed = _stream(bench, missing, rows)
        if cache is not None:
            cache.mkdir(parents=True, exist_ok=True)
            for layer, moment in computed.items():
                if moment.nbytes <= _MOST_KEPT:
                    with whole_file(cache / names[layer]) as unfinished:
                        save_file({"moment": moment.cpu().contiguous()}, unfinished)
        found |= computed
    return found


def bystander_moments(bench: Workbench, layers: Sequence[int]) -> Mapping[int, Tensor]:
    """E[k k^T] over the bystanders' subjects, as ``second_moments``.

    Most of an edit's damage is done to other subjects of the same kind, whose keys lie close to the edited ones and are
    rare in text. The published editors know nothing of them.
    """
    rows = [bare_row(bench.tokenizer, fact) for fact in bench.bystanders]
    if any(row.subject == 0 for row in rows) and begins_with_a_sink(bench.model, bench.layout, layers):
        rows = [row for row in rows if row.subject > 0] or rows
    keys_nd = subject_keys(bench.model, bench.layout, layers, rows)
    return {layer: keys.T @ keys / len(keys) for layer, keys in keys_nd.items()}


def _pack(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], tokens: int) -> Tensor:
    """The corpus as equal rows of tokens without padding, ``(rows, row length)``."""
    stream: list[int] = []
    for text in texts:
        stream.extend(tokenizer(text)["input_ids"])
        if len(stream) >= tokens:
            break
    length = min(_ROW_TOKENS, tokens)
    rows = min(len(stream), tokens) // length
    if rows * length < tokens - length:
        raise EditError(
            f"The corpus has {len(stream)} tokens, and the covariance wants {tokens}.",
            "Give more text or lower covariance_tokens.",
        )
    return torch.tensor(stream[: rows * length]).view(rows, length)


def _stream(bench: Workbench, layers: Sequence[int], rows: Tensor) -> dict[int, Tensor]:
    model, memories = bench.model, {layer: bench.layout.memory(layer) for layer in layers}
    paths = {layer: memory.path for layer, memory in memories.items()}
    # Sums of a pass are float32, the sum over passes float64: rounding stays below that of one pass.
    widths = {layer: memory.key_width for layer, memory in memories.items()}
    sums = {
        layer: torch.zeros(width, width, dtype=torch.float64, device=model.device) for layer, width in widths.items()
    }
    batches = rows.split(_ROWS_PER_PASS)
    special = torch.isin(rows, torch.tensor(bench.tokenizer.all_special_ids, dtype=torch.long))
    special[:, 0] = True
    ordinary = (~special).split(_ROWS_PER_PASS)
    with evaluating(model), torch.inference_mode():
        for index, batch in enumerate(batches):
            with capture(model, inputs_of=list(paths.values()), stop_after=paths[max(layers)]) as seen:
                model(batch.to(model.device), use_cache=False)
            counted = ordinary[index].to(model.device)
            for layer, path in paths.items():
                keys = by_row(seen.inputs[path], len(batch))[counted].float()
                sums[layer] += keys.T @ keys
            if bench.progress is not None:
                bench.progress(index + 1, len(batches), "covariance")
    count = int((~special).sum())
    return {layer: (sums.pop(layer) / count).float() for layer in layers}


def _cache_name(model_fingerprint: str, layer: int, module: str, rows: Tensor) -> str:
    """The path of a memory can be given by hand, and tokens cut into other rows have other contexts: both count."""
    read = hashlib.sha256(f"ordinary {module} {tuple(rows.shape)} ".encode() + rows.numpy().tobytes()).hexdigest()
    return f"{model_fingerprint[:16]}-layer{layer}-{read[:16]}-{rows.numel()}.safetensors"


def _kept(path: Path) -> Tensor | None:
    """What an earlier call kept; a file that a full disk or a crash has cut short counts as absent."""
    try:
        return load_file(path)["moment"]
    except (OSError, SafetensorError, KeyError):
        return None
