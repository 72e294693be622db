"""``grad-callbacks lint``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grad_callbacks.lint.judging import Judgement


def add_command(commands: Any) -> None:
    """Add the command to a parser's commands.

    Args:
        commands: What ``add_subparsers`` has returned.
    """
    parser = commands.add_parser("lint", help="judge the exported history of a run that has ended")
    parser.add_argument("file", type=Path, metavar="FILE", help="history.parquet of a run, or the same as CSV")
    parser.add_argument(
        "--steps", type=Path, metavar="FILE", help="the run's steps.parquet or CSV (default: the one beside FILE)"
    )
    parser.add_argument("--mute", nargs="+", default=[], metavar="RULE", help="leave rules out, by their ids")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_lint, package="pandas")


def _lint(options: argparse.Namespace) -> int:
    from grad_callbacks.lint.export import read_export
    from grad_callbacks.lint.judging import judge

    judgement = judge(read_export(options.file, options.steps), options.mute)
    text = json.dumps(_plain(judgement), indent=2) if options.json else "\n".join(_lines(judgement))
    sys.stdout.write(f"{text}\n")
    return 1 if judgement.findings else 0


def _plain(judgement: Judgement) -> dict[str, Any]:
    findings = [{"rule": finding.rule, **finding.alert.to_dict()} for finding in judgement.findings]
    return {
        "verdict": judgement.verdict,
        "readings": judgement.readings,
        "layers": judgement.layers,
        "findings": findings,
        "not_judged": judgement.not_judged,
        "raised_by_the_run": judgement.raised,
    }


def _lines(judgement: Judgement) -> list[str]:
    lines = [f"{judgement.verdict}: {judgement.readings} readings of {judgement.layers} layers"]
    for finding in judgement.findings:
        alert = finding.alert
        lines.append(f"step {alert.step}: {finding.rule}: {alert.kind} gradients ({alert.severity}): {alert.message}")
        if alert.cause:
            lines.append(f"  likely cause, by the numbers alone: {alert.cause}")
    if judgement.raised is not None:
        told = ", ".join(f"{row.get('kind')} at step {row.get('step')}" for row in judgement.raised)
        lines.append(f"the run itself has raised: {told or 'nothing'}")
    return [*lines, *(f"not judged: {what}" for what in judgement.not_judged)]
