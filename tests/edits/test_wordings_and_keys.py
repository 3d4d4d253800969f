"""Texts of an edit, where their subjects end, and the keys read there against a one-by-one computation."""

from __future__ import annotations

import pytest
import torch
from tiny_edits import bench_of, edit, one_vocabulary
from torch.multiprocessing.reductions import StorageWeakRef
from worked_facts import CAPITALS, VARIED, fact

from indelible.edits.solving import keys
from indelible.edits.solving.covariance import bystander_moments
from indelible.edits.solving.keys import begins_with_a_sink, read_subjects
from indelible.edits.solving.texts import FactRows, Row, rows_for, sample_contexts
from indelible.errors import EditError, FactsError
from indelible.models.layout import find_layout
from tiny_families import TABLE, build_family, enliven
from tiny_models import Make, Tokenizer
from untouched import untouched

CONTEXTS = ("It rains in the north", "I said")


@pytest.mark.parametrize("number", range(len(VARIED)))
def test_rows_hold_prompt_subject_and_target(number: int, tiny_tokenizer: Tokenizer) -> None:
    edited = VARIED[number]
    rows = rows_for(tiny_tokenizer, edited, 2, CONTEXTS)
    assert [len(wording) for wording in rows.wordings] == [3, 3, 3]
    assert len(rows.rewrites) == 3 + 2  # the prompt bare and behind both contexts, two paraphrases bare
    essence = tiny_tokenizer.decode(rows.essence.tokens)
    assert essence == f"{edited.subject} is a"
    for row in all_rows(rows):
        # The subject's last token is the one with which the whole subject has been read for the first time.
        place = row.subject
        assert edited.subject in tiny_tokenizer.decode(row.tokens[: place + 1])
        beginnings = [tiny_tokenizer.decode(row.tokens[:end]) for end in range(place + 1)]
        text = tiny_tokenizer.decode(row.tokens)
        whole = text.rindex(edited.subject) if text.count(edited.subject) == 1 else None
        if whole is not None:
            assert all(len(beginning) < whole + len(edited.subject) for beginning in beginnings)
    for row in rows.rewrites:
        assert tiny_tokenizer.decode(row.tokens[-row.target :]) == f" {edited.new_object}"
    assert tiny_tokenizer.decode(rows.wordings[0][0].tokens) == edited.text()
    assert tiny_tokenizer.decode(rows.wordings[0][1].tokens) == f"{CONTEXTS[0]}. {edited.text()}"
    assert all(row.target == 0 for wording in rows.wordings for row in wording)


@pytest.mark.parametrize(("space", "start"), [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("number", range(len(VARIED)))
def test_what_stands_before_every_text_stands_nowhere_else(number: int, space: bool, start: bool) -> None:
    other_way, plain = one_vocabulary(space=space, start=start), one_vocabulary(space=False, start=False)
    begins = [plain.bos_token_id] * start
    for one, other in zip(
        all_rows(rows_for(plain, VARIED[number], 1, CONTEXTS)),
        all_rows(rows_for(other_way, VARIED[number], 1, CONTEXTS)),
        strict=True,
    ):
        # Written with its space by hand, the text has the same tokens, and what follows the first word has them anyway.
        text = " " * space + plain.decode(one.tokens)
        assert list(other.tokens) == [*begins, *plain(text, add_special_tokens=False)["input_ids"]]
        assert other.tokens[len(other.tokens) - other.target :] == one.tokens[len(one.tokens) - one.target :]
        assert other.target == one.target
        assert len(other.tokens) - other.subject == len(one.tokens) - one.subject


def test_the_side_that_a_tokenizer_pads_on_does_not_matter(tiny_model: Make) -> None:
    model = tiny_model("llama")
    left, right = (one_vocabulary(space=False, start=True, side=side) for side in ("left", "right"))
    contexts = sample_contexts(model, left, 2)
    assert contexts == sample_contexts(model, right, 2)
    rows = [rows_for(left, one, 1, CONTEXTS) for one in VARIED]
    assert rows == [rows_for(right, one, 1, CONTEXTS) for one in VARIED]
    assert left(["a", "the quick brown fox"], padding=True) != right(["a", "the quick brown fox"], padding=True)


def all_rows(rows: FactRows) -> list[Row]:
    return [row for wording in rows.wordings for row in wording] + [*rows.rewrites, rows.essence]


def test_rows_need_a_new_object_a_slot_and_enough_wordings(tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(EditError, match="has no new object"):
        rows_for(tiny_tokenizer, fact("Peru", "{} is", None), 0, ())
    with pytest.raises(FactsError, match="has no slot"):
        rows_for(tiny_tokenizer, fact("Peru", "Peru is", "x"), 0, ())
    with pytest.raises(EditError, match=r"500 paraphrases.*only \d+"):
        rows_for(tiny_tokenizer, fact("Peru", "{} is", "x"), 500, ())


@pytest.mark.parametrize("family", ["gpt2", "opt", "bloom", "llama", "gemma2"])
@pytest.mark.parametrize(("key_layer", "value_layer"), [(0, 2), (1, 1)])
def test_keys_are_means_of_one_by_one_readings(
    family: str, key_layer: int, value_layer: int, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(build_family(family, len(tiny_tokenizer)))
    rows = [rows_for(tiny_tokenizer, one, number % 2, CONTEXTS) for number, one in enumerate(VARIED[:7])]
    found = read_subjects(model, find_layout(model), key_layer, value_layer, rows)
    blocks = model.get_submodule(TABLE[family].blocks)
    seen: dict[str, torch.Tensor] = {}
    memory = blocks[key_layer].get_submodule(TABLE[family].mlp_out)  # type: ignore[index]
    memory.register_forward_pre_hook(lambda _module, args: seen.update(key=args[0].reshape(-1, args[0].shape[-1])))
    blocks[value_layer].register_forward_hook(  # type: ignore[index]
        lambda _module, _args, output: seen.update(state=(output if isinstance(output, torch.Tensor) else output[0])[0])
    )
    keys, states, owners = [], [], []
    for number, one in enumerate(rows):
        for wording in one.wordings:
            readings = []
            for row in wording:
                with torch.no_grad():
                    model(torch.tensor([row.tokens]))
                readings.append((seen["key"][row.subject].clone(), seen["state"][row.subject].clone()))
            keys.append(sum(key for key, _ in readings) / len(readings))
            states.append(readings[0][1])
            owners.append(number)
    torch.testing.assert_close(found.keys_dn, torch.stack(keys, dim=1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.states_on, torch.stack(states, dim=1), atol=1e-5, rtol=1e-4)
    assert found.facts_n.tolist() == owners


def test_contexts_follow_their_seed_and_leave_no_trace(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama").train()
    state = torch.random.get_rng_state()
    first = sample_contexts(model, tiny_tokenizer, 4, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    torch.manual_seed(99)
    assert sample_contexts(model, tiny_tokenizer, 4, seed=3) == first
    assert sample_contexts(model, tiny_tokenizer, 4, seed=4) != first
    assert len(set(first)) == 4
    assert all("{" not in text and "}" not in text and "\n" not in text for text in first)
    assert first[0].startswith("The")
    for text in first:
        rows_for(tiny_tokenizer, CAPITALS[0], 0, (text,))


def test_a_subject_that_begins_the_text_is_read_behind_contexts_where_its_key_is_the_sinks(
    tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(tiny_model("gpt2"))
    assert not begins_with_a_sink(model, find_layout(model), [1, 2])
    with torch.no_grad():
        model.transformer.wpe.weight[0] *= 100  # whatever the first token is, its state is its position's
    assert begins_with_a_sink(model, find_layout(model), [1, 2])
    first = VARIED[0]
    rows = rows_for(tiny_tokenizer, first, 1, CONTEXTS, sink=True)
    assert all(row.subject > 0 for row in all_rows(rows))
    assert [len(wording) for wording in rows.wordings] == [2, 3], "its paraphrase begins otherwise"
    assert rows_for(tiny_tokenizer, VARIED[1], 1, CONTEXTS, sink=True).wordings == (
        rows_for(tiny_tokenizer, VARIED[1], 1, CONTEXTS).wordings
    )
    with untouched(model), pytest.raises(EditError, match=r"'A' is the first token of 'A is'.*Give contexts"):
        edit("rome", model, tiny_tokenizer, [first], contexts=0)
    edit("rome", model, tiny_tokenizer, [first], contexts=1)
    beside = bystander_moments(bench_of(model, tiny_tokenizer, bystanders=[first, VARIED[1]]), [1])
    alone = bystander_moments(bench_of(model, tiny_tokenizer, bystanders=[VARIED[1]]), [1])
    assert torch.equal(beside[1], alone[1])


def test_no_pass_stays_in_memory_for_the_keys_read_in_it(tiny_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    layout = find_layout(model)
    monkeypatch.setattr(keys, "_TOKENS_PER_PASS", 8)
    passes, alive = list[StorageWeakRef](), list[int]()

    def watch(_module: object, args: tuple[torch.Tensor]) -> None:
        alive.append(sum(not one.expired() for one in passes))
        passes.append(StorageWeakRef(args[0].untyped_storage()))

    texts = [Row((5, 6, 7, number), 3, 0) for number in range(8, 16)]
    with model.get_submodule(layout.memory(0).path).register_forward_pre_hook(watch):
        found = keys.subject_keys(model, layout, [0], texts)
    assert alive == [0] * 4
    alone = torch.cat([keys.subject_keys(model, layout, [0], [text])[0] for text in texts])
    assert torch.allclose(found[0], alone, atol=1e-6)
