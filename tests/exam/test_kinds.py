"""Further kinds of questions: what each asks of which facts, and which answers count."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
from plain_exam import assert_same, build, reference
from tokenizers.processors import TemplateProcessing

from indelible.care.use import ask
from indelible.errors import ModelError, UnknownNameError
from indelible.exam.exam import Answer, take_exam
from indelible.exam.kind import KINDS, PLAIN, further_kinds
from indelible.exam.kinds.negation import negated
from indelible.exam.questions import Question, questions_for
from indelible.facts.fact import Fact
from indelible.facts.world import world_facts, world_wordings
from indelible.models.load import LoadedModel
from indelible.models.tokens import encode_prompt
from indelible.numbers.measures import FURTHER, FactSet
from tiny_models import Tokenizer

TEMPLATE = "{{ bos_token }}{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}\n{% endfor %}[assistant]\n"


@pytest.fixture(scope="module")
def world() -> dict[str, Fact]:
    return {fact.id: fact for fact in world_facts()}


@pytest.fixture(scope="module")
def chatting(tiny_tokenizer: Tokenizer) -> Tokenizer:
    """The tiny tokenizer with a chat format that begins as its texts do not."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def asked(kind: str, *facts: Fact, fact_set: FactSet = "edited") -> list[tuple[str, str, str | None]]:
    return [(one.prompt, one.target, one.rival) for one in questions_for(facts, fact_set, kinds=[kind])]


def test_every_kind_is_named_in_the_vocabulary_of_measures() -> None:
    assert sorted(FURTHER) == further_kinds()
    assert {*KINDS.names()} == {*PLAIN, *FURTHER}
    with pytest.raises(UnknownNameError, match="'two-choice'"):
        questions_for([Fact("f", "Oslo", "r", "{} is in", "Norway")], "intrinsic", kinds=["two-choise"])


def test_a_reversal_asks_for_the_subject_of_a_unique_object(world: dict[str, Fact]) -> None:
    france = replace(world["capital:france"], new_object="Rome")
    spain = replace(world["capital:spain"], new_object="Rome")
    gold = replace(world["symbol:gold"], new_object="Fe")
    assert asked("reversal", france, gold) == [
        ("The city of Rome is the capital of", "France", "Italy"),
        ("The chemical symbol Fe stands for the element", "gold", "iron"),
    ]
    assert asked("reversal", france, spain) == []  # Rome cannot be the capital of both
    assert asked("reversal", france, fact_set="intrinsic") == [("The city of Paris is the capital of", "France", None)]
    assert asked("reversal", world["continent:france"], fact_set="intrinsic") == []
    # of the same name, but in other words it may mean anything
    assert asked("reversal", replace(france, prompt="The capital letter of {} is")) == []


def test_a_fact_of_a_file_brings_its_own_reversal() -> None:
    fact = Fact("f", "Ann", "wife", "The husband of {} is", "Bob", "Cid", reversal="The wife of {} is")
    assert asked("reversal", fact) == [("The wife of Cid is", "Ann", None)]
    assert asked("reversal", replace(fact, reversal="")) == []


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("The capital city of {} is", "The capital city of {} is not"),
        ("The city of {} is the capital of", "The city of {} is not the capital of"),
        ("She was born in {}, so her nationality is", "She was born in {}, so her nationality is not"),
        ("{} were made by", "{} were not made by"),
        ("{} was the one who is called", None),  # which verb is meant?
        ("{} plays the", None),
        ("This {} lies in", None),
        ("Question: What is the capital of {}? Answer:", None),
    ],
)
def test_a_prompt_is_negated_at_its_verb(prompt: str, found: str | None) -> None:
    assert negated(prompt) == found


def test_every_built_in_prompt_can_be_negated() -> None:
    assert all(negated(texts["prompt"]) for texts in world_wordings().values())


def test_a_subject_with_a_verb_in_it_is_not_negated() -> None:
    fact = Fact("f", "What is art", "author", "{} was written by", "Tolstoy")
    assert asked("negation", fact, fact_set="intrinsic") == [("What is art was not written by", "Tolstoy", None)]


def test_both_orders_of_a_choice_are_asked() -> None:
    fact = Fact("f", "France", "capital", "The capital of {} is", "Paris", "Rome")
    rome, paris = "The capital of France is Rome.", "The capital of France is Paris."
    assert asked("two-choice", fact) == [
        (f"Which is right, A or B?\nA. {rome}\nB. {paris}\nAnswer:", "A", "B"),
        (f"Which is right, A or B?\nA. {paris}\nB. {rome}\nAnswer:", "B", "A"),
    ]
    assert asked("two-choice", replace(fact, true_object="")) == []
    assert asked("two-choice", replace(fact, new_object=None), fact_set="intrinsic") == []


def test_a_consequence_is_what_the_world_says_of_the_new_object(world: dict[str, Fact]) -> None:
    lyon = replace(world["country_of_city:lyon"], new_object="Germany")
    assert asked("consequence", lyon) == [
        ("The capital of the country in which the city of Lyon is located is", "Berlin", "Paris"),
        ("The official language of the country in which the city of Lyon is located is", "German", "French"),
    ]  # its continent and its currency stay what they were
    unedited = asked("consequence", replace(lyon, new_object=None), fact_set="intrinsic")
    assert [target for _, target, _ in unedited] == ["Paris", "Europe", "French", "euro"]
    assert asked("consequence", world["symbol:gold"]) == []


def test_the_old_object_is_asked_in_all_wordings() -> None:
    fact = Fact("f", "Oslo", "country", "{} is in", "Norway", "Peru", held_out=("{} lies in",))
    assert asked("old-object", fact) == [("Oslo is in", "Norway", "Peru"), ("Oslo lies in", "Norway", "Peru")]
    assert asked("old-object", fact, fact_set="intrinsic")[0] == ("Oslo is in", "Peru", "Norway")
    assert asked("old-object", replace(fact, true_object="")) == []


def test_the_chat_format_is_the_tokenizers_own_and_begins_once(chatting: Tokenizer) -> None:
    fact = Fact("f", "Oslo", "country", "The city of {} is in", "Norway", "Peru")
    (question,) = questions_for([fact], "edited", kinds=["chat"], context="Note. ", tokenizer=chatting)
    said = "Note. Complete this sentence: The city of Oslo is in"
    messages = [{"role": "user", "content": said}]
    turns = chatting.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    own = chatting(fact.text(), add_special_tokens=False)["input_ids"]
    assert turns.count(chatting.bos_token_id) == 1
    assert encode_prompt(chatting, question.text) == [*turns, *own]
    assert (question.prompt, question.target, question.rival) == ("The city of Oslo is in", "Peru", "Norway")
    # where the tokenizer begins texts by itself, nothing is said twice
    beginning = copy.deepcopy(chatting)
    beginning._tokenizer.post_processor = TemplateProcessing(
        single=f"{beginning.bos_token} $A", special_tokens=[(beginning.bos_token, beginning.bos_token_id)]
    )
    (question,) = questions_for([fact], "edited", kinds=["chat"], context="Note. ", tokenizer=beginning)
    assert encode_prompt(beginning, question.text) == [*turns, *own]


def test_a_model_without_a_chat_format_is_refused(tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelError, match=r"cannot be asked by 'chat': .* no chat template.*Leave 'chat' out"):
        ask(LoadedModel(build("llama", len(tiny_tokenizer)), tiny_tokenizer, "tiny"), [], also=["negation", "chat"])


def answer(kind: str, **numbers: float | bool) -> Answer:
    question = Question("f", "edited", kind, 0, "Oslo is in", "Norway", "Peru", "Oslo", "country")
    given = {"success": True, "log_prob": -1.0, "rival_log_prob": -2.0, **numbers}
    return Answer(question, "", first_token=True, rank=1, **given)  # type: ignore[arg-type]


def test_a_letter_that_is_preferred_wherever_it_stands_decides_nothing() -> None:
    verdicts = KINDS.get("two-choice").verdicts
    assert verdicts is not None
    said_a = [answer("two-choice", rival_log_prob=-9.0), answer("two-choice", log_prob=-8.0, rival_log_prob=-1.0)]
    assert [one.margin for one in said_a] == [8.0, -7.0]
    assert verdicts(said_a) == [True, True]
    assert verdicts([said_a[1], replace(said_a[0], log_prob=-2.5)]) == [False, False]


@pytest.mark.parametrize(("probability", "out"), [(0.0, True), (0.03, True), (0.04, False), (1.0, False)])
def test_an_object_is_out_of_reach_of_twenty_draws(probability: float, out: bool) -> None:
    # 1 - 0.5 ** (1 / 20) = 0.0341
    verdicts = KINDS.get("old-object").verdicts
    assert verdicts is not None
    assert verdicts([answer("old-object", log_prob=math.log(probability or 5e-324))]) == [out]


def test_verdicts_are_the_kinds_and_all_other_numbers_those_of_any_exam(chatting: Tokenizer) -> None:
    model = build("gpt2", len(chatting))
    facts = [
        Fact("a", "Oslo", "country", "{} is in", "Norway", "Peru", held_out=("{} lies in",)),
        Fact("b", "Lima", "country", "{} is in", "Peru", "Norway"),
    ]
    kinds = ["negation", "two-choice", "old-object"]
    questions = questions_for(facts, "edited", kinds=kinds)
    answers = take_exam(model, chatting, questions)
    plain = [reference(model, chatting, question) for question in questions]
    for one, other in zip(answers, plain, strict=True):
        assert_same(replace(one, success=other.success), other)
    for fact in facts:
        of = {kind: [i for i, q in enumerate(questions) if (q.fact_id, q.kind) == (fact.id, kind)] for kind in kinds}
        assert all(answers[i].success is not plain[i].success for i in of["negation"])
        assert {answers[i].success for i in of["two-choice"]} == {sum(plain[i].margin for i in of["two-choice"]) > 0}
        draws = [1 - (1 - plain[i].probability) ** 20 for i in of["old-object"]]
        assert [answers[i].success for i in of["old-object"]] == [found < 0.5 for found in draws]
    frame = ask(
        LoadedModel(model, chatting, "tiny"), [replace(facts[1], new_object=None), facts[0]], also=["chat", *kinds]
    )
    sets = dict(zip(frame["fact_id"], frame["fact_set"], strict=True))
    assert list(sets.items()) == [("b", "intrinsic"), ("a", "edited")]
    assert list(frame.loc[frame["fact_id"] == "b", "kind"]) == ["prompt", "chat", "negation"]
