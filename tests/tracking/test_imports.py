"""What importing the room loads, and its former names."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

import grad_callbacks.tracking as tracking

HEAVY = ("mlflow", "lightning", "torch", "pandas", "matplotlib", "pyarrow", "rich", "PIL")


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split()) & set(HEAVY)


@pytest.mark.parametrize(
    ("statement", "not_needed"),
    [
        ("from grad_callbacks.tracking import StoreError, default_store, sync, true_status", HEAVY),
        ("import grad_callbacks", HEAVY),
        ("import grad_callbacks.tracking.cli", HEAVY),
        ("import grad_callbacks.cli", HEAVY),
        ("import grad_callbacks.tracking.system, grad_callbacks.tracking.context", HEAVY),
        ("from grad_callbacks.tracking import compare, over_seeds", HEAVY),
        (
            "from grad_callbacks.tracking import write_comparison",
            ("mlflow", "lightning", "pandas", "matplotlib", "rich"),
        ),
    ],
)
def test_a_name_loads_only_what_it_needs(statement: str, not_needed: tuple[str, ...]) -> None:
    assert not loaded_by(statement) & set(not_needed)


def test_the_logger_loads_what_lightning_does_and_no_more() -> None:
    lightning = loaded_by("import lightning.pytorch.loggers")
    assert loaded_by("from grad_callbacks.tracking import JournaledMLFlowLogger") == lightning


def test_all_public_names_are_there() -> None:
    assert {name for name in tracking.__all__ if getattr(tracking, name)} == set(dir(tracking))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = tracking.nothing


def test_the_former_names_work_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="Story is now called RunReport"):
        story = tracking.Story("healthy", "healthy", (), (), pd.DataFrame(), "text", course=pd.DataFrame({"step": [1]}))
    assert isinstance(story, tracking.RunReport)
    assert story.steps["step"].tolist() == [1]
    with pytest.warns(DeprecationWarning, match="record_story is now called record_report"):
        assert tracking.record_story is tracking.record_report
