"""The ``grad-callbacks`` command."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    from grad_callbacks.tracking import StoreError

    try:
        status: int = options.run(options)
    except (StoreError, ValueError, RuntimeError, OSError) as error:
        sys.stderr.write(f"grad-callbacks {options.command}: {error}\n")
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="grad-callbacks", description="Browse and compare runs and their remedies.")
    commands = parser.add_subparsers(dest="command", required=True)
    store = argparse.ArgumentParser(add_help=False)
    store.add_argument("--store", help="MLflow tracking address (default: $MLFLOW_TRACKING_URI, or ./mlflow.db)")

    ui = commands.add_parser("ui", parents=[store], help="start a local MLflow server on the store")
    ui.add_argument("--port", type=int, default=5000, help="first port to try (default: %(default)s)")
    ui.set_defaults(run=_ui)

    compare = commands.add_parser("compare", parents=[store], help="print the runs side by side")
    compare.add_argument("--experiment", default="grad-callbacks", help="MLflow experiment (default: %(default)s)")
    compare.add_argument("--csv", type=Path, metavar="FILE", help="also write the table as CSV")
    compare.add_argument("--picture", type=Path, metavar="FILE", help="also draw it (.png, .svg or .pdf)")
    compare.set_defaults(run=_compare)
    return parser


def _ui(options: argparse.Namespace) -> int:
    from rich.console import Console

    from grad_callbacks.tracking.server import free_port, start_server, stop_server, wait_until_ready
    from grad_callbacks.tracking.store import default_store, prepare_store

    store = options.store or default_store()
    prepare_store(store)
    console = Console(soft_wrap=True)
    console.print(f"Starting MLflow on {store} …")
    port = free_port(options.port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop like Ctrl-C does
    server = start_server(store, port)
    try:
        console.print(f"MLflow is ready: [bold]{wait_until_ready(server, port)}[/bold] (Ctrl-C stops it)")
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        stop_server(server)


def _compare(options: argparse.Namespace) -> int:
    from rich.console import Console

    from grad_callbacks.tracking import compare, comparison_table, default_store, prepare_store
    from grad_callbacks.tracking.pictures import comparison

    table = compare(prepare_store(options.store or default_store()), options.experiment)
    if table.empty:
        raise ValueError(f"the experiment {options.experiment!r} has no runs yet")
    Console().print(comparison_table(table))
    if options.csv:
        table.to_csv(options.csv, index=False)
    if options.picture:
        comparison(table).savefig(options.picture, dpi=150)
    return 0


if __name__ == "__main__":
    sys.exit(main())
