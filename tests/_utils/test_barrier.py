"""The barrier around what users bring."""

from __future__ import annotations

import copy
import logging
import pickle

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


def test_what_is_left_out_stays_so_in_a_copy() -> None:
    fragile = Fragile(ZeroDivisionError())
    barrier = Barrier()
    barrier.call(fragile, fragile.act, 3, default=0)
    for copied_barrier, copied in (copy.deepcopy((barrier, fragile)), pickle.loads(pickle.dumps((barrier, fragile)))):
        assert copied_barrier.leaves_out(copied)
        assert not copied_barrier.leaves_out(fragile)


def test_an_open_barrier_lets_errors_through() -> None:
    barrier, fragile = Barrier(), Fragile(ZeroDivisionError())
    barrier.lets_through = True
    with pytest.raises(ZeroDivisionError):
        barrier.call(fragile, fragile.act, 3, default=0)
    assert not barrier.leaves_out(fragile)


def test_what_does_not_raise_gives_its_result() -> None:
    assert Barrier().call(len, len, "four", default=0) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_an_interrupt_passes(error: BaseException) -> None:
    fragile = Fragile(error)
    with pytest.raises(type(error)):
        Barrier().call(fragile, fragile.act, 3, default=0)
