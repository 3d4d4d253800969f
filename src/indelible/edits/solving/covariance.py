"""The second moment of a memory's keys over ordinary text, or at certain subjects: what an edit should leave alone.

One streaming pass over the text serves all layers asked for and stops at the deepest. A few multiples of the key width
in tokens give about the edits that the papers' hours of Wikipedia give (arXiv 2506.04226). What comes of text is kept
on disk when the caller names a folder, under everything that it depends on (model, layer, module, and the rows of
tokens as they are read) and with a hash, so that what a disk has changed is computed again; matrices so wide that
reading them back would take as long are not.

Left out are the first token of each row and special tokens. Attention rests there where it looks for nothing, and some
layers' states there are hundreds of times as large as any others: of the trace of SmolLM2-135M's second moment over
rows of 128 tokens, the first holds 98% at layer 11 and 0.1% at layer 7. No unit can be taken from such a trace.
Published code reads 100,000 texts of Wikipedia, each by itself and cut where the model ends, and counts every token.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from indelible.edits.editor import Workbench
from indelible.edits.solving.keys import begins_with_a_sink, subject_keys
from indelible.edits.solving.texts import bare_row
from indelible.errors import EditError
from indelible.files import disk_errors, unkept, whole_file
from indelible.models.batches import of_like_length, padded
from indelible.models.trace import by_row, capture, evaluating

_ROW_TOKENS = 128
_ROWS_PER_PASS = 8
_BLOCKS = 4
_LONGEST = 1024  # tokens of a text by itself: GPT-2's positions; a longer model's memory would be spent on few texts
_MOST_KEPT = 200_000_000
"""Bytes of a matrix on disk; at Llama-3.1-8B's key width of 14,336 one would have 800 million a layer."""


def second_moments(
    bench: Workbench, layers: Sequence[int], tokens: int, *, texts: int | None = None, first_tokens: bool = False
) -> Mapping[int, Tensor]:
    """E[k k^T] of the inputs of each layer's MLP output projection, over so many tokens of the corpus.

    Args:
        bench: whose corpus is read and whose cache is used.
        layers: one matrix each.
        tokens: in rows of 128, from the corpus' beginning.
        texts: in their place, so many texts or as many as there are, drawn from all, each read by itself.
        first_tokens: count first and special tokens, too.

    Returns:
        By layer, a ``(d, d)`` float32 matrix on the model's device, d the key width.

    Raises:
        EditError: if there is not enough text for a matrix of full rank.
    """
    memories = {layer: bench.layout.memory(layer) for layer in layers}
    width, cache = max(memory.key_width for memory in memories.values()), bench.cache
    if texts is None and tokens < 2 * width:
        raise EditError(
            f"covariance_tokens is {tokens}, too few for {width} key dimensions.", f"Use at least {2 * width}."
        )
    rows = _pack(bench.tokenizer, bench.corpus, tokens) if texts is None else _drawn(bench, texts, 2 * width)
    counted = "all" if first_tokens else "ordinary"
    names = {layer: _cache_name(bench.fingerprint, layer, one.path, rows, counted) for layer, one in memories.items()}
    kept = {} if cache is None else {layer: _kept(cache / name) for layer, name in names.items()}
    found = {layer: moment.to(bench.model.device) for layer, moment in kept.items() if moment is not None}
    missing = sorted(set(layers) - set(found))
    if missing:
        computed = _stream(bench, missing, rows, first_tokens)
        if cache is not None:
            small = {names[layer]: moment for layer, moment in computed.items() if moment.nbytes <= _MOST_KEPT}
            with unkept("Covariances are"), disk_errors(cache):
                cache.mkdir(parents=True, exist_ok=True)
                for name, moment in small.items():
                    with whole_file(cache / name) as unfinished:
                        kept_moment = moment.cpu().contiguous()
                        save_file({"moment": kept_moment}, unfinished, {"sha256": _digest(kept_moment)})
        found |= computed
    return found


def bystander_moments(bench: Workbench, layers: Sequence[int], *, first_tokens: bool = False) -> Mapping[int, Tensor]:
    """E[k k^T] over the bystanders' subjects, as ``second_moments``.

    Most of an edit's damage is done to other subjects of the same kind, whose keys lie close to the edited ones and are
    rare in text. The published editors know nothing of them.
    """
    rows = [bare_row(bench.tokenizer, fact) for fact in bench.bystanders]
    behind = [row for row in rows if row.subject > 0] or rows
    if not first_tokens and len(behind) < len(rows) and begins_with_a_sink(bench.model, bench.layout, layers):
        rows = behind
    keys_nd = subject_keys(bench.model, bench.layout, layers, rows)
    return {layer: keys.T @ keys / len(keys) for layer, keys in keys_nd.items()}


def _pack(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], tokens: int) -> list[list[int]]:
    """The corpus as equal rows of tokens."""
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
    return [stream[start : start + length] for start in range(0, rows * length, length)]


def _drawn(bench: Workbench, texts: int, least: int) -> list[list[int]]:
    """So many texts of the corpus, or all, as rows of their own tokens."""
    longest = min(_LONGEST, getattr(bench.model.config.get_text_config(), "max_position_embeddings", _LONGEST))
    order = torch.randperm(len(bench.corpus), generator=torch.Generator().manual_seed(1))[:texts].tolist()
    rows = [list(bench.tokenizer(bench.corpus[place])["input_ids"])[:longest] for place in sorted(order)]
    found = sum(map(len, rows))
    if found < least:
        raise EditError(
            f"The texts read ({len(rows)}) have {found} tokens, and a covariance wants {least}.", "Give more text."
        )
    return [row for row in rows if row]


def _stream(
    bench: Workbench, layers: Sequence[int], rows: Sequence[Sequence[int]], first_tokens: bool
) -> dict[int, Tensor]:
    model, memories = bench.model, {layer: bench.layout.memory(layer) for layer in layers}
    paths = {layer: memory.path for layer, memory in memories.items()}
    # Sums of a pass are float32, the sum over passes float64: rounding stays below that of one pass. Of a symmetric
    # matrix, blocks above the diagonal are enough: with four by four, ten of sixteen.
    widths = {layer: memory.key_width for layer, memory in memories.items()}
    sums = {
        layer: torch.zeros(width, width, dtype=torch.float64, device=model.device) for layer, width in widths.items()
    }
    batches = of_like_length([len(row) for row in rows], _ROWS_PER_PASS * _ROW_TOKENS)
    specials = torch.tensor(bench.tokenizer.all_special_ids, dtype=torch.long)
    count = 0
    with evaluating(model), torch.inference_mode():
        for index, batch in enumerate(batches):
            tokens, mask = padded([rows[place] for place in batch])
            counted = mask.bool()
            if not first_tokens:
                counted &= ~torch.isin(tokens, specials)
                counted[:, 0] = False
            count += int(counted.sum())
            with capture(model, inputs_of=list(paths.values()), stop_before=paths[max(layers)]) as seen:
                # Padding stands on the right, where a causal model does not see it.
                model(tokens.to(model.device), use_cache=False)
            for layer, path in paths.items():
                keys = by_row(seen.inputs[path], len(batch))[counted.to(model.device)].float()
                for start in range(0, widths[layer], -(-widths[layer] // _BLOCKS)):
                    some = slice(start, start + -(-widths[layer] // _BLOCKS))
                    sums[layer][some, start:] += keys[:, some].T @ keys[:, start:]
            if bench.progress is not None:
                bench.progress(index + 1, len(batches), "covariance")
    halves = {layer: (sums.pop(layer) / count).float().triu_() for layer in layers}
    return {layer: half + half.triu(1).T for layer, half in halves.items()}


def _cache_name(model_fingerprint: str, layer: int, module: str, rows: Sequence[Sequence[int]], counted: str) -> str:
    """The path of a memory can be given by hand, and tokens cut into other rows have other contexts: both count."""
    lengths = [len(row) for row in rows]
    shape = (len(rows), lengths[0]) if len(set(lengths)) == 1 else tuple(lengths)
    read = hashlib.sha256(f"{counted} {module} {shape} ".encode())
    for row in rows:
        read.update(array("q", row).tobytes())
    return f"{model_fingerprint[:16]}-layer{layer}-{read.hexdigest()[:16]}-{sum(map(len, rows))}.safetensors"


def _kept(path: Path) -> Tensor | None:
    """What an earlier call kept; a file that a full disk or a crash has cut short, that has changed since, or of which
    that cannot be said (older versions kept no hash) counts as absent."""
    try:
        with safe_open(path, "pt") as file:
            moment: Tensor = file.get_tensor("moment")
            return moment if (file.metadata() or {}).get("sha256") == _digest(moment) else None
    except (OSError, SafetensorError):
        return None


def _digest(moment: Tensor) -> str:
    shaped = hashlib.sha256(f"{moment.dtype} {tuple(moment.shape)} ".encode())
    shaped.update(moment.view(torch.uint8).numpy().data)
    return shaped.hexdigest()
