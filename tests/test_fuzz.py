"""A few cases of `make fuzz`: damaged input ends well or in an error of our own, and a case can be done again."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from fuzz.material import Desk
from fuzz.running import generator, targets
from fuzz.watch import HangError, Watch
from indelible.errors import IndelibleError


@pytest.mark.parametrize("target", ["study-options", "set", "claims", "facts", "data", "adapter"])
def test_damaged_input_ends_in_an_error_of_our_own(target: str, tmp_path: Path) -> None:
    make = targets()[target]
    desk = Desk(tmp_path, tmp_path / "inside")
    given = []
    for number in range(15):
        case, said = make(desk, generator(7, target, number))
        assert said == make(desk, generator(7, target, number))[1]
        given.append(said)
        with suppress(IndelibleError):
            case()
    assert len(set(given)) > 10
    assert [path.name for path in tmp_path.iterdir()] in ([], ["inside"])


def test_every_command_is_typed(tmp_path: Path) -> None:
    typed = [targets()["words"](Desk(tmp_path, tmp_path), generator(7, "words", number))[1] for number in range(150)]
    assert {"study", "facts", "verify", "push"} < {said.split("'")[1] for said in typed}


def test_what_a_case_does_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[object] = []
    monkeypatch.setattr("sys.addaudithook", hooks.append)  # there is no way to take one away
    monkeypatch.setattr("signal.signal", lambda *_: None)
    watch = Watch(tmp_path / "inside")

    def raised(error: BaseException) -> str:
        def case() -> None:
            raise error

        return watch.run(case).state

    assert [watch.run(lambda code=code: code).state for code in (0, 2, None)] == ["fine", "typed", "fine"]
    states = [raised(error) for error in (IndelibleError("x"), KeyError("x"), HangError(), SystemExit(1))]
    assert states == ["typed", "traceback", "hang", "traceback"]

    def reaching() -> None:
        for event, given in (
            ("open", (str(tmp_path / "inside" / "x"), "w", 1)),
            ("open", (str(tmp_path / "x"), "r", 0)),
            ("os.rename", (str(tmp_path / "inside" / "x"), str(tmp_path / "x"))),
        ):
            watch._audit(event, given)

    outcome = watch.run(reaching)
    assert outcome.state == "traceback" and outcome.outside == [f"os.rename {tmp_path / 'x'}"]
    assert hooks == [watch._audit]
