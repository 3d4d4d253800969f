"""The exam against a plain reference: one prompt at a time, no cache, transformers' own ``generate``."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
import tokenizers
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from plain_exam import END, PROMPTS, TABLED, assert_same, build, make_questions, reference
from tokenizers import models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from indelible.errors import FactsError, ModelError, SpellingError
from indelible.exam import batching, exam, tree
from indelible.exam.exam import Answer, answers_frame, how_held, known_facts, take_exam
from indelible.exam.proof import Ways
from indelible.exam.questions import Question, questions_for
from indelible.exam.scoring import WAYS, Reader
from indelible.exam.sitting import LABEL_TOKENS
from indelible.facts.fact import Fact, Neighbour
from indelible.models.tokens import encode_prompt, encode_target
from tiny_families import SHAPE, build_family, enliven
from tiny_models import FAMILIES, Make, Tokenizer
from tiny_readings import FURTHER, SLOWER
from untouched import untouched


def assert_generates(model: Any, tokenizer: Any, answer: Answer) -> None:
    """What the exam has written is what transformers' own ``generate`` writes, with whatever cache that uses."""
    prompt = encode_prompt(tokenizer, answer.question.prompt)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": END, "pad_token_id": END}
    written = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), **options)
    text = tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True).rstrip("\ufffd")
    both = min(len(text), len(answer.generated))
    assert both and text[:both] == answer.generated[:both]


@pytest.mark.parametrize("family", [*FAMILIES, *TABLED, *FURTHER])
def test_equals_the_plain_reference(family: str, tiny_tokenizer: Tokenizer) -> None:
    model = build(family, len(tiny_tokenizer))
    questions = make_questions(model, tiny_tokenizer)
    answers = take_exam(model, tiny_tokenizer, questions)
    for question, answer in zip(questions, answers, strict=True):
        assert_same(answer, reference(model, tiny_tokenizer, question))
    assert_generates(model, tiny_tokenizer, answers[0])
    assert 0 < sum(answer.success for answer in answers) < len(answers)
    assert len({answer.generated for answer in answers}) > len(answers) // 3


@pytest.mark.parametrize("family", [*SLOWER, *PROMPTS])
def test_a_slower_way_is_taken_where_a_cache_is_wrong(family: str, tiny_tokenizer: Tokenizer) -> None:
    model = build(family, len(tiny_tokenizer))
    questions = make_questions(model, tiny_tokenizer, 6)
    way = SLOWER[family][0] if family in SLOWER else "without a cache"
    with pytest.warns(UserWarning, match=f"{type(model).__name__} does not answer as in plain passes .* {way},"):
        answers = take_exam(model, tiny_tokenizer, questions)
    for question, answer in zip(questions, answers, strict=True):
        assert_same(answer, reference(model, tiny_tokenizer, question))
    if family not in ("xlstm", *PROMPTS):  # whose cache generate fails with, too; and whose it loses
        assert_generates(model, tiny_tokenizer, answers[0])
    assert len({answer.generated for answer in answers}) > 2


def test_a_model_that_looks_ahead_is_refused(tiny_tokenizer: Tokenizer) -> None:
    model = enliven(build_family("bert", len(tiny_tokenizer), settings=SHAPE))
    question = Question("f", "edited", "prompt", 0, "Oslo is in", "Norway", "Peru", "Oslo", "country")
    with untouched(model), pytest.raises(ModelError, match="BertLMHeadModel cannot be asked: even without a cache"):
        take_exam(model, tiny_tokenizer, [question])


def test_a_model_that_has_come_to_grief_still_answers(tiny_tokenizer: Tokenizer) -> None:
    model = build("llama", len(tiny_tokenizer))
    model.model.norm.weight.data.fill_(math.nan)
    question = Question("f", "edited", "prompt", 0, "Oslo is in", "Norway", "Peru", "Oslo", "country")
    assert math.isnan(take_exam(model, tiny_tokenizer, [question])[0].log_prob)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_with_a_cache(
    dtype: torch.dtype, tiny_tokenizer: Tokenizer, recwarn: pytest.WarningsRecorder
) -> None:
    model = build("llama", len(tiny_tokenizer)).to(dtype)
    take_exam(model, tiny_tokenizer, make_questions(model, tiny_tokenizer))
    assert not recwarn.list


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
def test_company_does_not_matter(family: str, tiny_tokenizer: Tokenizer) -> None:
    model = build(family, len(tiny_tokenizer))
    questions = make_questions(model, tiny_tokenizer)
    together = take_exam(model, tiny_tokenizer, questions)
    shuffled = random.Random(1).sample(questions, len(questions))
    by_threes = {a.question: a for a in take_exam(model, tiny_tokenizer, shuffled, batch_size=3)}
    for question, answer in zip(questions, together, strict=True):
        assert_same(answer, by_threes[question])
        assert_same(answer, take_exam(model, tiny_tokenizer, [question])[0])


def test_leaves_the_model_and_the_random_state_alone(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("gpt2")
    questions = make_questions(model, tiny_tokenizer, 6)
    judged = take_exam(model, tiny_tokenizer, questions)
    model.train()
    model.transformer.h[1].eval()
    for block in model.transformer.h:
        block.mlp.dropout.p = 0.5
    with untouched(model):
        again = take_exam(model, tiny_tokenizer, questions)
    assert [answer.log_prob for answer in again] == [answer.log_prob for answer in judged]


def test_autocast_and_a_prepared_forward_do_not_change_the_result(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    model = tiny_model("llama")
    questions = make_questions(model, tiny_tokenizer, 6)
    plain = [answer.log_prob for answer in take_exam(model, tiny_tokenizer, questions)]
    prepared = Accelerator(mixed_precision="bf16", cpu=True).prepare_model(model)
    AcceleratorState._reset_state(reset_partial_state=True)
    wrapped = prepared(input_ids=torch.tensor([[1, 2, 3]])).logits
    assert not torch.equal(wrapped, prepared._original_forward(input_ids=torch.tensor([[1, 2, 3]])).logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert [answer.log_prob for answer in take_exam(prepared, tiny_tokenizer, questions)] == plain


def test_what_is_alike_is_read_once(
    tiny_model: Make, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts, what they begin with alike, and answers, also where a text that is written goes their way."""
    model, passes = tiny_model("gpt2"), []
    grow = Reader.grow
    monkeypatch.setattr(Reader, "grow", lambda self, tokens, *more: passes.append(tokens) or grow(self, tokens, *more))
    norway = Question("f", "edited", "prompt", 0, "Oslo is in", "Norway", "Peru", "Oslo", "country")
    rome = dataclasses.replace(norway, prompt="Oslo is old", target="Portuguese", rival=None)
    questions = [norway, dataclasses.replace(norway, target="Japan"), norway, rome]
    written = reference(model, tiny_tokenizer, norway)
    questions.append(dataclasses.replace(norway, target=written.generated.strip(), rival=None))
    answers = take_exam(model, tiny_tokenizer, questions)
    assert_same(answers[-1], reference(model, tiny_tokenizer, questions[-1]))
    texts = {
        (*prompt, *encode_target(tiny_tokenizer, question.prompt, answer)[:-1])
        for question in questions
        for prompt in [encode_prompt(tiny_tokenizer, question.prompt)]
        for answer in (question.target, question.rival)
        if answer
    }
    assert passes[0].numel() == len({text[: end + 1] for text in texts for end in range(len(text))})
    longest = 2 + max(len(encode_target(tiny_tokenizer, norway.prompt, one.target)) for one in questions)
    assert len(passes) <= longest + 2  # in which a text is drawn out to prove how they are read
    # Two prompts are written on, and a text is drawn out to prove how they are read.
    assert sum(tokens.numel() for tokens in passes[1:]) <= 2 * (longest - 1) + longest + LABEL_TOKENS


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_many_rows_and_prompts_that_go_on(
    family: str, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows hold few slots, and some prompts are what is written after others."""
    monkeypatch.setattr(tree, "ROW_SLOTS", 12)
    monkeypatch.setattr(tree, "TEXTS_PER_ROW", 1)
    model = build(family, len(tiny_tokenizer))
    questions = make_questions(model, tiny_tokenizer)
    texts = [question.prompt + reference(model, tiny_tokenizer, question).generated[:9] for question in questions[:5]]
    longer = [
        dataclasses.replace(question, prompt=text.rstrip()) for question, text in zip(questions, texts, strict=False)
    ]
    for answer in take_exam(model, tiny_tokenizer, [*questions, *longer]):
        assert_same(answer, reference(model, tiny_tokenizer, answer.question))


def test_a_batch_that_does_not_fit_is_halved(tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("gpt2", len(tiny_tokenizer))
    questions = make_questions(model, tiny_tokenizer)
    expected = take_exam(model, tiny_tokenizer, questions)
    grow, refused = Reader.grow, []

    def crowded(reader: Reader, tokens: torch.Tensor, *more: Any) -> torch.Tensor:
        if tokens.numel() > 40:
            refused.append(tokens)
            raise torch.OutOfMemoryError
        return grow(reader, tokens, *more)

    monkeypatch.setattr(Reader, "grow", crowded)
    for answer, other in zip(take_exam(model, tiny_tokenizer, questions), expected, strict=True):
        assert_same(answer, other)
    assert refused


def test_memory_sets_the_size_of_a_tree(tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama", len(tiny_tokenizer))
    questions = make_questions(model, tiny_tokenizer)
    expected = take_exam(model, tiny_tokenizer, questions)
    batches: list[Any] = []
    monkeypatch.setattr(batching, "CPU_BYTES", 300_000)
    monkeypatch.setattr(batching, "TreeReading", lambda *of: batches.append(of[-1]) or tree.TreeReading(*of))
    answers = take_exam(model, tiny_tokenizer, questions)
    assert len(batches) > 2 and max(map(len, batches)) > 1
    for answer, other in zip(answers, expected, strict=True):
        assert_same(answer, other)


def test_a_way_is_sought_once(tiny_tokenizer: Tokenizer, recwarn: pytest.WarningsRecorder) -> None:
    model = build("mamba", len(tiny_tokenizer))
    questions, ways = make_questions(model, tiny_tokenizer, 3), Ways()
    first = take_exam(model, tiny_tokenizer, questions, ways=ways)
    assert WAYS[ways.first].name == "without a cache" and len(recwarn.list) == 1
    for answer, other in zip(take_exam(model, tiny_tokenizer, questions, ways=ways), first, strict=True):
        assert_same(answer, other)
    assert len(recwarn.list) == 1


def make_facts(model: Any, tokenizer: Any, count: int) -> list[Fact]:
    """Facts with random subjects, half of them with the first word that the model will write as their object."""
    facts = []
    for index, question in enumerate(make_questions(model, tokenizer, count)):
        subject = f"{question.prompt} {index}"
        facts.append(Fact(f"f{index}", subject, "r", "In {} there", question.target))
    written = [answer.generated for answer in take_exam(model, tokenizer, questions_for(facts, "intrinsic"))]
    return [
        dataclasses.replace(fact, true_object=text.split()[0]) if index % 2 and text.strip() else fact
        for index, (fact, text) in enumerate(zip(facts, written, strict=True))
    ]


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_known_facts_are_those_passed(family: str, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exam, "KNOWN_FACTS_CHUNK", 7)
    model = build(family, len(tiny_tokenizer))
    facts = make_facts(model, tiny_tokenizer, 30)
    answers = take_exam(model, tiny_tokenizer, questions_for(facts, "intrinsic"))
    passed = [fact for fact, answer in zip(facts, answers, strict=True) if answer.success]
    assert 2 < len(passed) < len(facts)
    seen: list[tuple[int, int, str]] = []
    assert known_facts(model, tiny_tokenizer, facts, progress=lambda *now: seen.append(now)) == passed
    assert seen[-1] == (30, 30, f"{len(passed)} known")
    held = how_held(model, tiny_tokenizer, facts)
    assert [(one.fact, one.known) for one in held] == [(fact, fact in passed) for fact in facts]
    assert [one.probability for one in held] == pytest.approx([answer.probability for answer in answers], rel=1e-3)
    seen.clear()
    assert known_facts(model, tiny_tokenizer, facts, enough=2, progress=lambda *now: seen.append(now)) == passed[:2]
    assert seen[-1][0] < 30


def test_a_fact_too_long_for_the_model_is_unknown_to_it(tiny_tokenizer: Tokenizer) -> None:
    model = build("llama", len(tiny_tokenizer))
    facts = make_facts(model, tiny_tokenizer, 12)
    known = known_facts(model, tiny_tokenizer, facts)
    assert known
    endless = dataclasses.replace(facts[0], id="endless", subject="Oslo and " * 80)
    with pytest.raises(FactsError, match=r"'endless'.*tokens"):
        take_exam(model, tiny_tokenizer, questions_for([endless], "intrinsic"))
    assert known_facts(model, tiny_tokenizer, [endless, *facts]) == known


def test_a_fact_that_cannot_be_spelled_is_unknown_to_it() -> None:
    words = tokenizers.Tokenizer(models.WordLevel({"?": 0, "Oslo": 1, "is": 2, "in": 3, "Norway": 4}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    model = build("llama", len(tokenizer))
    fact = Fact("f", "Oslo", "country", "{} is in", "Norway")
    written = take_exam(model, tokenizer, questions_for([fact], "intrinsic"))[0].generated
    known = dataclasses.replace(fact, true_object=written.split()[0])
    foreign = dataclasses.replace(fact, id="foreign", true_object="Peru")
    assert known_facts(model, tokenizer, [foreign, known]) == [known]
    with pytest.raises(SpellingError, match="object 'Peru'"):
        take_exam(model, tokenizer, questions_for([foreign], "intrinsic"))


def test_rows_have_the_agreed_columns(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    fact = Fact(
        "f", "Oslo", "country", "{} is in", "Norway", "Peru", (), ("Find {} in",), (Neighbour("Rome is", "old"),)
    )
    questions = questions_for([fact], "edited")
    told: list[tuple[int, int, str]] = []
    answers = take_exam(tiny_model("gpt2"), tiny_tokenizer, questions, progress=lambda *now: told.append(now))
    frame = answers_frame(answers)
    about = ["fact_set", "fact_id", "subject", "relation", "kind", "wording", "prompt", "target", "rival"]
    found = ["generated", "success", "first_token", "log_prob", "probability", "margin", "rank"]
    assert list(frame.columns) == [*about, *found]
    assert list(frame["kind"]) == ["prompt", "paraphrase", "neighbour"]
    assert frame["success"].dtype == bool
    first = frame.iloc[0]
    assert first["probability"] == pytest.approx(math.exp(first["log_prob"]))
    assert first["margin"] == pytest.approx(answers[0].log_prob - answers[0].rival_log_prob)
    assert told[-1][:2] == (3, 3)
    assert answers_frame([]).shape == (0, 16)
    untold = questions_for([dataclasses.replace(fact, true_object="")], "edited")[:1]
    assert math.isnan(answers_frame(take_exam(tiny_model("gpt2"), tiny_tokenizer, untold))["margin"][0])
    asked = questions_for([dataclasses.replace(fact, new_object=None)], "intrinsic")[:1]
    assert math.isnan(answers_frame(take_exam(tiny_model("gpt2"), tiny_tokenizer, asked))["margin"][0])


def test_bad_questions_are_named(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("gpt2")
    question = Question("f7", "edited", "prompt", 0, "Oslo is in", "Norway", None, "Oslo", "country")
    with pytest.raises(FactsError, match=r"'f7'.*empty answer"):
        take_exam(model, tiny_tokenizer, [dataclasses.replace(question, target=" ")])
    with pytest.raises(FactsError, match=r"'f7'.*tokens; the model takes 128"):
        take_exam(model, tiny_tokenizer, [dataclasses.replace(question, prompt="Oslo is in " * 60)])
    with pytest.raises(FactsError, match="no tokens"):
        take_exam(model, tiny_tokenizer, [dataclasses.replace(question, prompt="")])
    assert take_exam(model, tiny_tokenizer, []) == []
