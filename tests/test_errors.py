"""Errors: what they say, and that they come back from another process as they were."""

from __future__ import annotations

import copy
import pickle

import pytest

from indelible import errors
from indelible.errors import IndelibleError, UnknownNameError

KINDS = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IndelibleError)),
    key=lambda kind: kind.__name__,
)


def an_error(kind: type[IndelibleError]) -> IndelibleError:
    return kind("editor", "rom", ["rome", "memit"]) if kind is UnknownNameError else kind("It broke.", "Mend it.")


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickle(kind: type[IndelibleError]) -> None:
    error = an_error(kind)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def test_an_unknown_name_comes_with_the_nearest_known_ones() -> None:
    assert str(an_error(UnknownNameError)) == "Unknown editor 'rom'. Did you mean 'rome'?"
