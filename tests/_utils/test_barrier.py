"""The barrier around what users bring."""

from __future__ import annotations

import logging

import pytest

from grad_callbacks._utils.barrier import Barrier


class Fragile:
    def __init__(self, error: BaseException) -> None:
        self.error, self.calls = error, 0

    def act(self, number: int) -> int:
        self.calls += 1
        raise self.error


def test_what_raises_is_logged_once_with_its_traceback_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    barrier, fragile, sound = Barrier(), Fragile(ZeroDivisionError("oh")), Fragile
    with caplog.at_level(logging.ERROR, logger="grad_callbacks"):
        assert [barrier.call(fragile, fragile.act, 3, default=7) for _ in range(3)] == [7, 7, 7]
    assert fragile.calls == 1
    assert barrier.leaves_out(fragile)
    assert not barrier.leaves_out(sound)
    (record,) = caplog.records
    assert "Fragile raised an error" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_what_does_not_raise_gives_its_result() -> None:
    assert Barrier().call(len, len, "four", default=0) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupt_passes(error: BaseException) -> None:
    fragile = Fragile(error)
    with pytest.raises(type(error)):
        Barrier().call(fragile, fragile.act, 3, default=0)
