"""The config groups that come with the package, in an app that knows nothing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.utils import instantiate

import grad_callbacks
from grad_callbacks import GradientGuard, GradientMonitor

CONF = Path(grad_callbacks.__file__).parent / "conf" / "callbacks"


def composed(*overrides: str) -> Any:
    with initialize(None, version_base="1.3"):
        return instantiate(compose(overrides=list(overrides)).callbacks)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def test_hydra_finds_the_plugin() -> None:
    names = [plugin.__name__ for plugin in Plugins.instance().discover(SearchPathPlugin)]
    assert names.count("GradCallbacksSearchPath") == 1


def test_no_path_is_needed() -> None:
    assert type(composed("+callbacks=gradient_monitor", "callbacks.every_n_steps=3")) is GradientMonitor
    assert type(composed("+callbacks=gradient_guard")) is GradientGuard


@pytest.mark.parametrize("preset", options("preset"))
def test_a_preset(preset: str) -> None:
    guard = composed("+callbacks=gradient_guard", f"+callbacks/preset={preset}")
    assert repr(guard) == repr(GradientGuard(preset))


@pytest.mark.parametrize("group", ["rules", "remedies"])
def test_every_option_makes_a_guard_of_its_own(group: str) -> None:
    made = {repr(composed("+callbacks=gradient_guard", f"+callbacks/{group}={name}")) for name in options(group)}
    assert len(made) >= len(options(group)) - 1 > 2, "clip_norm and others differ in what they name"


def test_rules_and_remedies_go_together_and_a_name_may_be_put_in_front() -> None:
    chosen = ["+callbacks=gradient_guard", "+callbacks/remedies=clip_and_skip", "+callbacks/rules=exploding"]
    rules = "Exploding, Outlier, SaturatedAttention, NonFinite"
    assert repr(composed(*chosen)).endswith(f"rules {rules}; remedies ClipNorm, SkipStep>")
    named = ["+callbacks@callbacks.guard=gradient_guard", "+callbacks/preset@callbacks.guard=gentle"]
    assert "preset 'gentle'" in repr(composed(*named).guard)
