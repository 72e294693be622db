"""Fixtures for the tests of tracking."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tracking.servers import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Starts processes quickly."""
    made = Nursery()
    yield made
    made.close()
