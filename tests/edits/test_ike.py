"""Facts in the context: what stands there, that the exam reads it before each prompt, and that no model is touched."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_edits import edit as edit_with
from tiny_edits import logits, one_vocabulary
from worked_facts import CAPITALS

from indelible.edits.beside.context import Context
from indelible.edits.deltas.delta import Edit
from indelible.edits.editor import EDITORS
from indelible.errors import ConfigError, EditError, FactsError, FingerprintError
from indelible.exam.exam import answers_frame, known_facts, take_exam
from indelible.exam.questions import questions_for
from indelible.models.layout import find_layout
from indelible.models.tokens import encode_prompt
from indelible.tuning.freezing.mask import frozen_parameters
from tiny_families import TABLE, build_family, enliven
from tiny_models import Make, Tokenizer
from untouched import untouched

FACTS = CAPITALS[:3]


def edit(model: Any, tokenizer: Any, facts: Any = FACTS, **more: Any) -> Context:
    return edit_with("ike", model, tokenizer, facts, **{"corpus": (), **more})


@pytest.mark.parametrize("opening", [False, True])
@pytest.mark.parametrize("family", TABLE)
def test_the_exam_reads_the_context_before_each_prompt_and_the_model_is_never_touched(
    family: str, opening: bool, tmp_path: Path
) -> None:
    tokenizer, plain = (one_vocabulary(space=False, start=start) for start in (opening, False))
    model = enliven(build_family(family, len(tokenizer)))
    facts = [replace(fact, held_out=("In {} the capital city is",)) for fact in FACTS]
    with untouched(model):
        made = edit(model, tokenizer, facts)
        made.save(tmp_path / "made.safetensors")
        loaded = Edit.load(tmp_path / "made")
        assert loaded.context == made.context and loaded.manifest == made.manifest and made.parameters == ()
        asked = questions_for(facts, "edited", context=loaded.context)
        with made.applied(model) as same:
            assert same is model
            found = take_exam(model, tokenizer, asked)
    # What is read: the tokenizer's opening once, the statements, and the prompt as it is read alone.
    own = encode_prompt(plain, made.context) + encode_prompt(plain, facts[0].text())
    assert encode_prompt(tokenizer, asked[0].text) == [tokenizer.bos_token_id] * opening + own
    scores = logits(model, [[tokenizer.bos_token_id] * opening + own])[0, -1].log_softmax(-1)
    first = encode_prompt(plain, f" {facts[0].new_object}")[0]
    assert found[0].rank == 1 + int((scores > scores[first]).sum())
    # Tables hold the bare prompts.
    assert list(answers_frame(found)["prompt"]) == [one.prompt for one in questions_for(facts, "edited")]
    bare = take_exam(model, tokenizer, questions_for(facts, "edited"))
    assert [one.log_prob for one in found] != [one.log_prob for one in bare]


def test_what_the_model_knows_may_depend_on_the_context(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    context = edit(model, tiny_tokenizer).context
    for text in ("", context):
        said = take_exam(model, tiny_tokenizer, questions_for(FACTS, "intrinsic", context=text))
        facts = [replace(fact, true_object=one.generated.strip() or "x") for fact, one in zip(FACTS, said, strict=True)]
        answers = take_exam(model, tiny_tokenizer, questions_for(facts, "intrinsic", context=text))
        wanted = [fact for fact, answer in zip(facts, answers, strict=True) if answer.success]
        assert known_facts(model, tiny_tokenizer, facts, context=text) == wanted != []


def test_statements_stand_in_rounds_and_paraphrases_come_first(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    lines = edit(model, tiny_tokenizer, FACTS[:2], paraphrases=1, copies=2).context.splitlines()
    assert lines[2:] == ["Name the capital of France Oslo.", "Name the capital of Norway Lima."] * 2
    assert [line.split("apital of ")[1] for line in lines[:2]] == ["France Oslo.", "Norway Lima."]
    known = edit(model, tiny_tokenizer, FACTS[:1], bystanders=CAPITALS[1:], retain=1)
    assert known.context == "Name the capital of Norway Paris.\nName the capital of France Oslo.\n"


def test_an_earlier_context_is_continued_by_its_own_editor_alone(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    both = edit(model, tiny_tokenizer)
    first = edit(model, tiny_tokenizer, FACTS[:1])
    second = edit(model, tiny_tokenizer, FACTS[1:], earlier=first)
    assert (second.facts, second.context) == (both.facts, both.context)
    again = edit(model, tiny_tokenizer, [replace(FACTS[0], new_object="Quito")], earlier=both)
    assert [one.new_object for one in again.facts] == ["Lima", "Paris", "Quito"]
    assert "Oslo" not in again.context
    for name in ("grace", "memit"):
        with pytest.raises(EditError, match=f"A context is no edit that {name} can go on from. Go on with ike"):
            EDITORS.get(name)().edit(model, tiny_tokenizer, FACTS[1:], earlier=first)


def test_what_cannot_be_done_with_a_context_is_refused(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model, made = tiny_model("llama"), edit(tiny_model("llama"), tiny_tokenizer)
    with pytest.raises(EditError, match=r"changes nothing in a model. .*edit.context \+ prompt"):
        made.apply(model)
    with pytest.raises(FingerprintError), made.applied(tiny_model("llama", seed=1)):
        pass
    with pytest.raises(ConfigError, match="freezes nothing without an edit"):
        frozen_parameters("up-to-edited", model, find_layout(model), made.parameters)
    long = replace(FACTS[0], prompt="word " * 80 + "{}")
    with pytest.raises(FactsError, match=r"\d+ tokens, with the facts that stand before it; the model takes 128"):
        take_exam(model, tiny_tokenizer, questions_for([long], "edited", context=made.context))


def test_a_context_that_is_too_long_is_refused_in_our_own_words(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    own, model = copy.deepcopy(tiny_tokenizer), tiny_model("llama")
    own.deprecation_warnings.clear()  # it has warned of nothing yet
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("transformers").addHandler(handler)
    with untouched(model), pytest.raises(EditError, match=r"context of 3 facts takes \d+ tokens; the model takes 128"):
        edit(model, own, copies=9)
    assert said == [], "one refusal, in our own words"
    own("word " * 200)
    logging.getLogger("transformers").removeHandler(handler)
    assert len(said) == 1, "the tokenizer goes on warning others"
