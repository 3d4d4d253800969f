"""What a model writes after prompts by itself, in a way of which it is proved that it writes what it means.

``generate`` pads prompts on the left and reads on a cache. Some families then count positions from the padding, run it
through their state, or lose what a cache has to hold. As in ``proof``, that is tried, and the fastest right way taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from transformers import PreTrainedModel

from indelible.models.batches import in_pieces, most_tokens, padded
from indelible.tuning.objective import Run
from indelible.tuning.randomness import seeded
from indelible.tuning.training.judging import as_judged
from indelible.tuning.training.proof import WITHIN, alone, difference, proving, refused

TRIED = 3
"""Tokens that are written to try a way: the first is read from the prompt, the others from a cache as well."""


def proved_writing(run: Run[Any]) -> Run[Any]:
    """The run, writing in the fastest way that is what whole passes of single rows say.

    Raises:
        ModelError: if there is none.
    """
    said = []
    for padding, cache in ((True, True), (False, True), (False, False)):
        way = replace(run, padding=padding, cache=cache)
        try:
            off = _off(way)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what a family raises that has no such cache, or takes no mask
            said.append(type(error).__name__)
            continue
        if off <= WITHIN:
            return way
        said.append(f"{off:.2g} nats off")
    ways = f"padded: {said[0]}; one length at a time: {said[1]}; without a cache: {said[2]}"
    raise refused(run.model, f"it writes otherwise than single whole passes of it say ({ways})")


def by_length(lengths: Sequence[int], run: Run[Any], size: int) -> list[Sequence[int]]:
    """Places of prompts that are answered together, at most ``size``, the shortest first."""
    ordered = sorted(range(len(lengths)), key=lengths.__getitem__)
    groups = [ordered] if run.padding else [list(group) for _, group in groupby(ordered, key=lengths.__getitem__)]
    return [piece for group in groups for piece in in_pieces(group, size)]


def _off(run: Run[Any]) -> float:
    """Nats by which a way of writing is off the whole pass of what was written, at worst."""
    found = []
    with proving(run) as rows:
        for batch in by_length([len(row) for row in rows], run, len(rows)):
            ids, mask = padded([rows[number] for number in batch], run.pad, side="left")
            generate: Any = run.model.generate
            written = generate(
                **_fixed(run, ids, mask, TRIED),
                do_sample=False,
                min_new_tokens=TRIED,
                output_logits=True,
                return_dict_in_generate=True,
            )
            for place, number in enumerate(batch):
                whole = [*rows[number], *written.sequences[place, ids.shape[1] :].tolist()]
                wanted_tv = alone(run.model, whole)[len(rows[number]) - 1 : -1]
                found_tv = torch.stack([step[place] for step in written.logits]).float().log_softmax(-1)
                found.append(difference(found_tv, wanted_tv))
    return float(torch.tensor(found).max())  # NaN if any is


def _fixed(run: Run[Any], ids: torch.Tensor, mask: torch.Tensor, tokens: int) -> dict[str, Any]:
    device = run.model.device
    return {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "max_new_tokens": tokens,
        "num_beams": 1,
        "use_cache": run.cache,
        "pad_token_id": run.pad,
    }


def greedy_answers(run: Run[Any], prompts: Sequence[Sequence[int]], tokens: int) -> list[str]:
    """What the model finds most probable after each prompt, token by token."""
    own = dict.fromkeys(("temperature", "top_p", "top_k", "min_p"))
    return _written(run, prompts, tokens, {"do_sample": False, "repetition_penalty": 1.0} | own)


def sampled_answers(
    run: Run[Any], prompts: Sequence[Sequence[int]], tokens: int, sampling: Mapping[str, Any]
) -> list[str]:
    """Answers that are drawn, by arguments of ``generate``, with the same random numbers in each call; those of the run
    go on as if none had been drawn."""
    with seeded(0):
        return _written(run, prompts, tokens, {**sampling, "do_sample": True})


def _written(run: Run[Any], prompts: Sequence[Sequence[int]], tokens: int, how: Mapping[str, Any]) -> list[str]:
    """What the model writes after each prompt, up to the end of text and ``tokens`` at most, prompts of like length
    together. An answer ends where the model has no more positions."""
    model, tokenizer = run.model, run.tokenizer
    answers = [""] * len(prompts)
    generate: Any = model.generate
    ends = _ends(model, tokenizer.eos_token_id)
    with as_judged(run):
        for chosen in by_length([len(prompt) for prompt in prompts], run, 4 * run.settings.batch_size):
            ids, mask = padded([prompts[number] for number in chosen], run.pad, side="left")
            room = min(tokens, most_tokens(model) - ids.shape[1])
            if room < 1:
                continue
            fixed = {**_fixed(run, ids, mask, int(room)), "eos_token_id": ends or None}
            for number, written in zip(chosen, generate(**{**how, **fixed}), strict=True):
                answer = written[ids.shape[1] :].tolist()
                stop = next((at for at, token in enumerate(answer) if token in ends), len(answer))
                answers[number] = str(tokenizer.decode(answer[:stop], skip_special_tokens=True))
    return answers


def _ends(model: PreTrainedModel, end: int | None) -> list[int]:
    """Tokens that end an answer: the tokenizer's, and those of the model's own generation settings."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = [end, *(own if isinstance(own, list) else [own])]
    return sorted({token for token in ends if token is not None})
