"""The table, as markdown."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from experiments.optimizers.catalogue import PACKAGES, STEPS
from experiments.optimizers.judging import Verdict
from experiments.optimizers.runs import FAULT_AT, FAULTS

HEAD = f"""# Optimizers

Written by `python -m experiments.optimizers`, with what `pip install grad-callbacks[optimizers]` brings. Each optimizer
trains a small classifier for {STEPS} steps, with its own defaults: alone, under `GradientMonitor()` and under
`GradientGuard()`, healthy and (alone and under the guard) with a fault at step {FAULT_AT}: a NaN batch, a loss times
1e6, a rate 1000 times as high from there on. The promise is kept if no run ends under a callback that does not end
alone, and if the weights of the healthy runs are the same to the bit. The columns show the loss over all data at the
end, alone → guarded; 1.39 is that of a guess, NaN stands for lost weights, or for a run that ends without any callback.
"""


def markdown(verdicts: Mapping[str, Verdict]) -> str:
    """Return the document."""
    tried = {name: verdict for name, verdict in verdicts.items() if not verdict.untried}
    kept = sum(verdict.kept for verdict in tried.values())
    lines = [HEAD, f"{kept} of {len(tried)} optimizers that could be tried keep the promise. {_versions()}\n"]
    columns = ["optimizer", "healthy: same weights", *FAULTS[1:], "ended through a callback"]
    lines += [_row(columns), _row(["---"] * len(columns))]
    lines += [_row(_cells(name, verdict)) for name, verdict in tried.items()]
    lines += ["\n## Not tried\n\nThese raise without any callback, in this training or when they are made.\n"]
    lines += [f"- `{name}`: {verdict.untried}" for name, verdict in verdicts.items() if verdict.untried]
    return "\n".join(lines) + "\n"


def _cells(name: str, verdict: Verdict) -> list[str]:
    faults = [_losses(*verdict.rows[fault][:2]) for fault in FAULTS[1:]]
    same = "yes" if not verdict.changed else f"no, under the {' and the '.join(verdict.changed)}"
    return [f"`{name}`", same, *faults, "; ".join(verdict.ended) or "none"]


def _losses(alone: float, guarded: float) -> str:
    left, right = ("NaN" if loss != loss else f"{loss:.2g}" for loss in (alone, guarded))
    return f"{left} → {right}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _versions() -> str:
    return "Versions: " + ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name))) + "."


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
