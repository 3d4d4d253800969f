"""Causal tracing: which states, where, carry a fact (ROME, Meng et al. 2022, section 2, arXiv 2202.05262).

A fact is asked three ways: as it is (clean); with noise on its subject's embeddings (corrupted), so that the model no
longer knows whom it is asked about; and corrupted, but with some clean states put back (restored). By how much a
restored state brings the answer's probability back is its *indirect effect*.

The corrupted run is made once, everything below a restored layer is taken from it, and all positions, samples and facts
of equal length are run together. A trace of one fact costs, per kind of state, about layers / 2 runs of the model for
every position from the subject on, times the samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.errors import EditError
from indelible.facts.fact import Fact
from indelible.models.batches import in_pieces
from indelible.models.layout import Layout
from indelible.models.tokens import encode_object, encode_prompt, subject_tokens
from indelible.models.trace import by_row, capture, evaluating, replace, resume_from, select_before_head
from indelible.progress import Progress

Kind = Literal["hidden", "mlp", "attention"]
KINDS: tuple[Kind, ...] = get_args(Kind)

GROUPS = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first further token",
    "further tokens",
    "last token",
)
"""Positions as the ROME paper groups them. A subject of one token is its own last."""

_TOKENS_PER_PASS = 4096


@dataclass(frozen=True)
class Traced:
    """The effect of restoring one state of one fact.

    Attributes:
        kind: what was restored: a block's output ("hidden"), or what MLP or attention returned in a window of layers.
        layer: the block, or the window's middle.
        position: of the token in the prompt.
        clean: probability of the answer's first token without noise.
        corrupted: with noise, a mean over samples.
        restored: with noise and the clean state, a mean over samples.
    """

    fact_id: str
    kind: Kind
    layer: int
    position: int
    group: str
    clean: float
    corrupted: float
    restored: float

    @property
    def effect(self) -> float:
        """The indirect effect."""
        return self.restored - self.corrupted


def trace_facts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    facts: Sequence[Fact],
    *,
    kinds: Sequence[Kind] = ("hidden", "mlp", "attention"),
    groups: Sequence[str] = GROUPS,
    samples: int = 3,
    noise: float = 3.0,
    window: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Traced]:
    """Trace facts, asked for their true objects, that the model knows; the others are left out.

    Args:
        kinds: what is restored; MLPs in layers that have a memory alone.
        groups: positions at which it is restored.
        samples: draws of noise for each fact, the same for all that is restored of it.
        noise: standard deviation of the noise, in standard deviations of the input embeddings.
        window: layers whose MLP or attention outputs are restored together; None takes 10, as published, or a third of
            a shallower model's.

    Raises:
        EditError: if the model answers none of the facts by its most probable next token.
        LayoutError: if MLPs are to be restored and no layer has a memory.
        FactsError: if a prompt lacks its subject.
    """
    if "mlp" in kinds and not layout.known_memories:
        layout.memory(0)
    width = window or max(1, min(10, layout.n_layers // 3))
    found: dict[int, list[Traced]] = {}
    done = 0
    with evaluating(model), torch.no_grad():
        size = noise * _embedded_spread(model)
        for numbers in _of_equal_length(tokenizer, facts, samples):
            together = _Together(model, tokenizer, layout, [facts[number] for number in numbers], samples, size, seed)
            for kind in kinds if together.facts else ():
                for one, number in together.restore(kind, groups, width):
                    found.setdefault(numbers[number], []).append(one)
            done += len(numbers)
            if progress is not None:
                progress(done, len(facts), f"{len(found)} traced")
    known = sorted(found)
    if not known:
        raise EditError(
            f"The model answers none of these {len(facts)} facts, so that nothing can be traced.",
            "Give facts that it knows (`indelible facts --known-by MODEL`).",
        )
    return [one for number in known for one in found[number]]


def _embedded_spread(model: PreTrainedModel) -> float:
    """Standard deviation of what the embedding returns over the vocabulary; some families scale after the look-up."""
    embedding = _embedding(model)
    total, squares, count = 0.0, 0.0, 0
    for ids in torch.arange(embedding.weight.shape[0], device=embedding.weight.device).split(8192):
        vectors = embedding(ids).double()
        total += float(vectors.sum())
        squares += float((vectors**2).sum())
        count += vectors.numel()
    return float(max(squares / count - (total / count) ** 2, 0.0) ** 0.5)


def _embedding(model: PreTrainedModel) -> Any:
    return model.get_input_embeddings()


def _of_equal_length(tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact], samples: int) -> list[Sequence[int]]:
    """Numbers of the facts whose prompts have equally many tokens, so that none has to be padded; as many as may be
    corrupted in one pass, for what every layer returned to them is kept."""
    groups: dict[int, list[int]] = {}
    for number, fact in enumerate(facts):
        groups.setdefault(len(encode_prompt(tokenizer, fact.text())), []).append(number)
    return [
        piece
        for length, group in groups.items()
        for piece in in_pieces(group, max(1, _TOKENS_PER_PASS // (length * samples)))
    ]


class _Together:
    """Facts of equal length, asked clean and corrupted, and what comes of restoring parts of the one in the other.

    Attributes:
        facts: those of them that the model knows, by their number among those given.

    Suffixes: f facts, s samples, t tokens, r rows that are run, each a fact with a sample and a position.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        layout: Layout,
        facts: Sequence[Fact],
        samples: int,
        noise: float,
        seed: int,
    ) -> None:
        self.model, self.layout, self.samples = model, layout, samples
        tokens_ft = torch.tensor([encode_prompt(tokenizer, fact.text()) for fact in facts], device=model.device)
        answers = [encode_object(tokenizer, fact.text(), fact.true_object)[0] for fact in facts]
        memories = [memory.path for memory in layout.known_memories.values()]
        paths = [*layout.blocks, *layout.attention, *memories]
        self.length = tokens_ft.shape[1]
        with capture(model, outputs_of=paths, copies=True) as seen:
            chances_fv = self._chances(tokens_ft)
        numbers = [number for number, answer in enumerate(answers) if int(chances_fv[number].argmax()) == answer]
        self.facts = {number: facts[number] for number in numbers}
        if not numbers:
            return
        self.tokens_ft = tokens_ft[numbers]
        self.answers_f = torch.tensor([answers[number] for number in numbers], device=model.device)
        self.clean_f = chances_fv[numbers].gather(1, self.answers_f.unsqueeze(1)).squeeze(1)
        self.states = {path: by_row(output, len(facts))[numbers] for path, output in seen.outputs.items()}
        self.subjects = [subject_tokens(tokenizer, fact.prompt, fact.subject) for fact in self.facts.values()]
        self.noise = torch.cat([self._drawn(place, noise, seed) for place in range(len(numbers))])
        self.embeddings = next(path for path, part in model.named_modules() if part is _embedding(model))
        everyone = torch.arange(len(numbers), device=model.device).repeat_interleave(samples)
        with (
            replace(model, self.embeddings, lambda output: output + self.noise.to(output.dtype)),
            capture(model, outputs_of=list(layout.blocks), copies=True) as noisy,
        ):
            chances_rv = self._chances(self.tokens_ft[everyone])
        self.noisy = {path: by_row(output, len(everyone)) for path, output in noisy.outputs.items()}
        self.corrupted_f = self._means(chances_rv, everyone)

    def _drawn(self, place: int, noise: float, seed: int) -> Tensor:
        """One fact's noise, ``(s, t, width)``: zero outside its subject, and the same whatever is traced beside it."""
        first, last = self.subjects[place]
        fact = list(self.facts.values())[place]
        digest = hashlib.sha256(f"{seed} {fact.id}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        width = _embedding(self.model).weight.shape[1]
        drawn = torch.zeros(self.samples, self.length, width)
        drawn[:, first : last + 1] = noise * torch.randn((self.samples, last + 1 - first, width), generator=generator)
        return drawn.to(self.model.device)

    def restore(self, kind: Kind, groups: Sequence[str], window: int) -> Iterator[tuple[Traced, int]]:
        """Restore each layer (or window) at each position of these groups: what comes of it, and the fact's number."""
        asked = [
            (place, position)
            for place, (first, _) in enumerate(self.subjects)
            for position in range(first, self.length)
            if self._group(place, position) in groups
        ]
        for layer in self._places(kind) if asked else ():
            chances = self._restored(kind, layer, asked, window)
            for (place, position), chance in zip(asked, chances, strict=True):
                number = list(self.facts)[place]
                clean, corrupted = float(self.clean_f[place]), float(self.corrupted_f[place])
                group, name = self._group(place, position), self.facts[number].id
                yield Traced(name, kind, layer, position, group, clean, corrupted, chance), number

    def _places(self, kind: Kind) -> dict[int, str]:
        """Paths of what is restored, by layer: of MLPs the memories, where there are any."""
        if kind == "mlp":
            return {layer: memory.path for layer, memory in self.layout.known_memories.items()}
        return dict(enumerate(self.layout.blocks if kind == "hidden" else self.layout.attention))

    def _restored(self, kind: Kind, layer: int, asked: Sequence[tuple[int, int]], window: int) -> list[float]:
        """Probability of the answer for each fact and position, a mean over samples."""
        first = layer - window // 2
        places = self._places(kind)
        together = [layer] if kind == "hidden" else [one for one in range(first, first + window) if one in places]
        found: list[float] = []
        size = max(1, _TOKENS_PER_PASS // (self.length * self.samples))
        for start in range(0, len(asked), size):
            found += self._pass(together, places, asked[start : start + size])
        return found

    def _pass(self, layers: Sequence[int], paths: Mapping[int, str], asked: Sequence[tuple[int, int]]) -> list[float]:
        """One pass from the lowest restored layer up."""
        layout, device = self.layout, self.model.device
        facts_r, at_r = torch.tensor(asked, device=device).T.repeat_interleave(self.samples, dim=1)
        rows_r = torch.arange(len(facts_r), device=device)
        noisy_r = facts_r * self.samples + rows_r % self.samples
        with ExitStack() as stack:
            for layer in layers:
                clean_rw = self.states[paths[layer]][facts_r, at_r]

                def put_back(output: Tensor, clean_rw: Tensor = clean_rw) -> Tensor:
                    changed = by_row(output, len(rows_r)).clone()
                    changed[rows_r, at_r] = clean_rw
                    return changed.view_as(output)

                stack.enter_context(replace(self.model, paths[layer], put_back))
            if layers[0] == 0 or not layout.resumes:
                noise = self.noise[noisy_r]
                stack.enter_context(
                    replace(self.model, self.embeddings, lambda output: output + noise.to(output.dtype))
                )
            else:
                below = self.noisy[layout.blocks[layers[0] - 1]][noisy_r]
                as_tuple = layout.blocks_return_tuple
                stack.enter_context(resume_from(self.model, layout.blocks, layers[0], below, as_tuple=as_tuple))
            chances_rv = self._chances(self.tokens_ft[facts_r])
        means: list[float] = self._means(chances_rv, facts_r).tolist()
        return means

    def _means(self, chances_rv: Tensor, facts_r: Tensor) -> Tensor:
        """Probability of the answer in each run of ``s`` rows that belong together."""
        own_r = chances_rv.gather(1, self.answers_f[facts_r].unsqueeze(1)).squeeze(1)
        return own_r.view(-1, self.samples).mean(1)

    def _chances(self, tokens: Tensor) -> Tensor:
        """Probabilities of what follows the last token of each row."""
        rows = torch.arange(len(tokens), device=tokens.device)
        last = torch.full_like(rows, self.length - 1)
        with select_before_head(self.model.get_submodule(self.layout.head), rows, last):
            logits: Tensor = self.model(tokens, use_cache=False).logits[0]
        return logits.float().softmax(-1)

    def _group(self, place: int, position: int) -> str:
        first, last = self.subjects[place]
        if position == last:
            return GROUPS[2]
        if position < last:
            return GROUPS[0] if position == first else GROUPS[1]
        if position == self.length - 1:
            return GROUPS[5]
        return GROUPS[3] if position == last + 1 else GROUPS[4]
