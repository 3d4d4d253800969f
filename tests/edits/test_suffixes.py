"""What is run of a text in place of all of it gives what the whole text gives, in every row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedModel
from worked_facts import VARIED

from indelible.edits.solving.prefixes import hardest
from indelible.edits.solving.suffixes import SuffixRuns
from indelible.edits.solving.texts import rows_for
from indelible.models.layout import find_layout
from indelible.models.trace import evaluating, replace
from tiny_families import build_family, enliven
from tiny_models import Tokenizer

# Prefixes of so many lengths that they are read in several passes.
CONTEXTS = ("It rains in the north and the wind blows over the hills", "I said")


class Unplaced(LlamaForCausalLM):
    """Counts positions by itself, from the padding on: rows are right that have none, and those that are nothing but
    padding before their subject."""

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
        targets = 0
        for part in runs.parts(range(len(facts))):
            assert (part.cache is not None) is cached
            found_qv, _ = runs.predict(part, deltas_fso)
            nll_q = -found_qv.gather(1, part.targets_q[:, None])[:, 0]
            expected = dict[int, torch.Tensor]()
            for number in part.target_rows_q.unique().tolist():
                fact = int(part.facts_r[number])
                read = part.tokens_rs[number][: int(part.mask_rk[number, -part.tokens_rs.shape[1] :].sum())].tolist()
                (row,) = {
                    row
                    for row in facts[fact].rewrites
                    if list(row.tokens[:-1])[-len(read) :] == read
                    and len(row.tokens) - 1 - len(read) == int(part.mask_rk[number].sum()) - len(read)
                }
                expected[number] = whole(model, layout.memory(1).path, row, deltas_fso[fact, 0])
            wanted_q = torch.cat([expected[number] for number in part.target_rows_q.unique().tolist()])
            torch.testing.assert_close(nll_q, wanted_q, atol=1e-4, rtol=1e-4)
            targets += len(nll_q)
    assert targets == sum(row.target for fact in facts for row in fact.rewrites)


def whole(model: PreTrainedModel, memory: str, row: Any, delta: torch.Tensor) -> torch.Tensor:
    """Of the row's targets, minus their log-probabilities in one pass over all of it."""

    def changed(output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, row.subject] += delta
        return output

    with replace(model, memory, changed):
        logits = model(torch.tensor([row.tokens[:-1]]), use_cache=False).logits[0, -row.target :]
    return -logits.log_softmax(-1)[range(row.target), list(row.tokens[-row.target :])]
