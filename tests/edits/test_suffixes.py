"""What is run of a text in place of all of it gives what the whole text gives, in every row."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel
from worked_facts import VARIED

from indelible.edits.solving.prefixes import Trees, hardest
from indelible.edits.solving.suffixes import SuffixRuns
from indelible.edits.solving.texts import rows_for
from indelible.models.layout import find_layout
from indelible.models.trace import evaluating, replace
from tiny_families import build_family, enliven
from tiny_models import Tokenizer

# Prefixes of so many lengths that they are read in several passes.
CONTEXTS = ("It rains in the north and the wind blows over the hills", "I said")


class Unplaced(LlamaForCausalLM):
    """Counts positions by itself, from what is cached on."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        past_key_values: Any = None,
        use_cache: Any = None,
        logits_to_keep: Any = 0,
        **more: Any,
    ) -> Any:
        options = {"past_key_values": past_key_values, "use_cache": use_cache, "logits_to_keep": logits_to_keep}
        return super().forward(input_ids, attention_mask=attention_mask, **options, **more)


def test_of_rows_behind_others_the_hardest_are_asked() -> None:
    assert hardest([3], [[0]]) == {0}
    assert hardest([4, 0, 9, 3, 8], [[1, 3, 4], [0, 2]]) == {1, 2, 3}  # of 5 tokens of padding each the one before 8
    assert hardest([4, 0, 9, 1, 2], [[1, 3, 4], [0, 2]]) == {1, 2, 0}


@pytest.mark.parametrize(("kind", "cached"), [("llama", True), ("gpt2", True), ("unplaced", False)])
def test_every_row_is_read_as_by_itself(kind: str, cached: bool, tiny_tokenizer: Tokenizer) -> None:
    model: PreTrainedModel = build_family("llama" if kind == "unplaced" else kind, len(tiny_tokenizer))
    enliven(model)
    if kind == "unplaced":
        placed, model = model, Unplaced(model.config).eval()
        model.load_state_dict(placed.state_dict())
    layout, facts = find_layout(model), [rows_for(tiny_tokenizer, fact, 1, CONTEXTS) for fact in VARIED[:8]]
    with evaluating(model), torch.no_grad():
        runs = SuffixRuns(model, layout, 1, ("mlp",), facts)
        deltas_fso = torch.randn(len(facts), 1, layout.hidden_size, generator=torch.Generator().manual_seed(0))
        found = defaultdict[int, list[float]](list)
        for part in runs.parts(range(len(facts))):
            assert (part.cache is not None) is cached
            log_probs_qv, _ = runs.predict(part, deltas_fso)
            nll_q = -log_probs_qv.gather(1, part.targets_q[:, None])[:, 0]
            for fact, nll in zip(part.facts_q.tolist(), nll_q.tolist(), strict=True):
                found[fact].append(nll)
    for fact, texts in enumerate(facts):
        each = [whole(model, layout.memory(1).path, row, deltas_fso[fact, 0]) for row in texts.rewrites]
        assert sorted(found[fact]) == pytest.approx(sorted(torch.cat(each).tolist()), abs=1e-4, rel=1e-4)


def test_prefixes_that_begin_alike_share_tokens_and_each_sees_its_own() -> None:
    trees = Trees.of([(5, 6, 7), (), (5, 6), (5, 8), (9,)], 10)
    assert trees is not None and trees.tokens_rt.tolist() == [[5, 6, 7, 8, 9]]
    assert trees.positions_rt.tolist() == [[0, 1, 2, 1, 0]]
    assert trees.slots == {(): [], (5, 6): [0, 1], (5, 6, 7): [0, 1, 2], (5, 8): [0, 3], (9,): [4]}
    assert [row.nonzero().flatten().tolist() for row in trees.sees_rtt[0]] == [[0], [0, 1], [0, 1, 2], [0, 3], [4]]
    two = Trees.of([(5, 6, 7), (5, 8), (9,)], 3)
    assert two is not None and two.tokens_rt.tolist() == [[5, 6, 7], [5, 8, 9]]
    assert two.slots == {(): [], (5, 6, 7): [0, 1, 2], (5, 8): [3, 4], (9,): [5]}
    assert Trees.of([()], 3) is None


def whole(model: PreTrainedModel, memory: str, row: Any, delta: torch.Tensor) -> torch.Tensor:
    """Of the row's targets, minus their log-probabilities in one pass over all of it."""

    def changed(output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, row.subject] += delta
        return output

    with replace(model, memory, changed):
        logits = model(torch.tensor([row.tokens[:-1]]), use_cache=False).logits[0, -row.target :]
    return -logits.log_softmax(-1)[range(row.target), list(row.tokens[-row.target :])]
