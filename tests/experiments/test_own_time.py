"""The clock that stands still while other programs have the processor."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from experiments.own_time import own_time


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux says how long a thread waited")
def test_time_of_other_programs_on_the_same_processor_does_not_count() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # of this thread, and of the process that it starts
    other = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        other.stdout.readline()
        own, wall, worked = own_time(), time.perf_counter(), time.thread_time()
        while time.thread_time() - worked < 0.2:
            pass
        own, wall, worked = own_time() - own, time.perf_counter() - wall, time.thread_time() - worked
    finally:
        other.kill()
        other.wait()
        os.sched_setaffinity(0, before)
    assert own - worked < (wall - worked) / 2


def test_time_asleep_counts() -> None:
    start = own_time()
    time.sleep(0.05)
    assert own_time() - start >= 0.049
