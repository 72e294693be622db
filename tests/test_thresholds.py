"""Numbers that decide stand in a dataclass of thresholds, with unit and source, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "grad_callbacks"
ROOMS = ("measurement", "detection", "treatment", "reporting", "engine")
NEUTRAL = {0, 1, 2, 0.5, 10, 100}  # counting, halving, squares, decades and percent decide nothing


def deciding_numbers(source: str) -> Iterator[tuple[int, float]]:
    """Line and value of each number outside of a dataclass of thresholds; of a module's constants also neutral ones."""

    def walk(node: ast.AST) -> Iterator[tuple[int, float]]:
        if isinstance(node, ast.ClassDef) and any(getattr(b, "id", "") == "Thresholds" for b in node.bases):
            return
        if isinstance(node, ast.FormattedValue) or _is_place_in_tables(node):
            return
        if isinstance(node, ast.Constant) and type(node.value) in (int, float) and abs(node.value) not in NEUTRAL:
            yield node.lineno, node.value
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    module = ast.parse(source)
    for statement in module.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            for node in ast.walk(statement.value):
                if isinstance(node, ast.Constant) and type(node.value) in (int, float) and abs(node.value) in NEUTRAL:
                    yield node.lineno, node.value
    yield from walk(module)


def _is_place_in_tables(node: ast.AST) -> bool:
    """True for ``order = 40``: where a rule's kind of alert stands in tables and legends."""
    return isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["order"]


@pytest.mark.parametrize("room", ROOMS)
def test_no_number_decides_outside_of_a_dataclass_of_thresholds(room: str) -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {value!r}"
        for path in sorted((PACKAGE / room).rglob("*.py"))
        for line, value in deciding_numbers(path.read_text())
    ]
    assert not found, "move these into the Thresholds of their rule or remedy:\n" + "\n".join(found)


def test_the_check_finds_what_it_looks_for() -> None:
    source = "class A(Thresholds):\n    a = 7\nLIMIT = 30\nMOST = 2\ndef f(x):\n    return x > 1.5 or x == 0\n"
    assert sorted(deciding_numbers(source)) == [(3, 30), (4, 2), (6, 1.5)]
