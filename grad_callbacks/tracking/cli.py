"""The ``grad-callbacks`` command."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grad_callbacks._utils.extras import needs, require
from grad_callbacks._utils.version import __version__

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Before MLflow is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

MAX_PORT = 65535


def main(arguments: Sequence[str] | None = None, more: Sequence[Callable[[Any], None]] = ()) -> int:
    """Run the command and return its exit status.

    Args:
        arguments: Those of the command line.
        more: Each adds a command of a room above this one.
    """
    options = _parser(more).parse_args(arguments)
    if options.command != "sync":  # a store that does not answer is told in seconds, where MLflow tries for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from grad_callbacks.tracking.secrets.masking import mask

    try:
        require(getattr(options, "package", "mlflow"), "mlflow", "this command")
        with needs("mlflow", "this command"):
            status: int = options.run(options)
    except (ModuleNotFoundError, ValueError, RuntimeError, OSError) as error:
        told = " ".join(str(mask(str(error))).split())
        sys.stderr.write(f"grad-callbacks {options.command}: {told}\n")
        return 2
    return status


def _parser(more: Sequence[Callable[[Any], None]]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="grad-callbacks",
        description="Browse, send and compare the runs that grad-callbacks has logged to MLflow; cure a training.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    store = argparse.ArgumentParser(add_help=False)
    store.add_argument("--store", help="MLflow tracking address (default: $MLFLOW_TRACKING_URI, or ./mlflow.db)")

    ui = commands.add_parser("ui", parents=[store], help="start a local MLflow server on the store")
    ui.add_argument("--port", type=_port, default=5000, help="first port to try (default: %(default)s)")
    ui.set_defaults(run=_ui)

    sync = commands.add_parser(
        "sync", help="send logged data that the server did not get during training, each entry once"
    )
    sync.add_argument("folder", nargs="?", type=Path, help="folder of the journals (default: ./mlflow-journal)")
    sync.add_argument(
        "--uri",
        "--tracking-uri",
        help="MLflow tracking address (default: the one that each run was logged to, if you logged it)",
    )
    sync.add_argument(
        "--ended", action="store_true", help="treat unfinished runs from other hosts as ended (status KILLED)"
    )
    sync.add_argument("--prune", action="store_true", help="remove journals of which everything is sent")
    sync.add_argument(
        "--trust",
        action="store_true",
        help="treat journals from elsewhere like your own: follow the server, run and artifact location that they name",
    )
    sync.set_defaults(run=_sync)

    compare = commands.add_parser(
        "compare", parents=[store], help="compare runs, or averages over seeds, in a table and as files"
    )
    compare.add_argument("experiment", nargs="?", help="MLflow experiment (default: grad-callbacks)")
    compare.add_argument("--experiment", dest="named", help="same as the positional argument")
    compare.add_argument(
        "--metric", help="metric to compare, by its last value (default: val/accuracy or a similar one)"
    )
    compare.add_argument(
        "--group", nargs="+", default=[], metavar="NAME", help="parameters or tags that distinguish variants"
    )
    compare.add_argument(
        "--baseline",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="runs to compare with (default: runs without a guard)",
    )
    compare.add_argument(
        "--sweep", metavar="RUN", help="only runs of this sweep: id or name of its parent run, or 'latest'"
    )
    compare.add_argument("--runs", action="store_true", help="print every run, even if there are several seeds")
    compare.add_argument("--csv", type=Path, metavar="FILE", help="also write the runs as CSV")
    compare.add_argument("--picture", type=Path, metavar="FILE", help="also draw the runs (.png, .svg or .pdf)")
    compare.add_argument("--out", type=Path, metavar="FOLDER", help="also write CSV, parquet and an HTML report there")
    compare.add_argument("--no-log", action="store_true", help="do not log the report into the sweep's parent run")
    compare.set_defaults(run=_compare)

    alerts = commands.add_parser("alerts", parents=[store], help="list the alerts of all runs")
    alerts.add_argument("--experiment", help="only runs of this MLflow experiment")
    alerts.add_argument("--json", action="store_true", help="as JSON, with the ids of the runs")
    alerts.set_defaults(run=_alerts)

    page = commands.add_parser("open", parents=[store], help="print the address of a run's page, and open it")
    page.add_argument("run_id", metavar="RUN", help="id of the run, its beginning, the run's name, or 'latest'")
    page.add_argument("--print", action="store_true", dest="only_print", help="do not open a browser")
    page.set_defaults(run=_open)
    for add_command in more:
        add_command(commands)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to {MAX_PORT}, got {text!r}")
    return int(text)


def _ui(options: argparse.Namespace) -> int:
    from rich.console import Console

    from grad_callbacks.tracking.secrets.masking import mask_address
    from grad_callbacks.tracking.server import free_port, start_server, stop_server, wait_until_ready
    from grad_callbacks.tracking.store import default_store, prepare_store

    store = options.store or default_store()
    if store.startswith(("http://", "https://")):
        raise ValueError(f"{mask_address(store)} is a server already: open it in a browser")
    prepare_store(store)
    console = Console(soft_wrap=True)
    console.print(f"Starting MLflow on {mask_address(store)} …")
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


def _sync(options: argparse.Namespace) -> int:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    from grad_callbacks.tracking import default_journals, sync

    folder = options.folder or default_journals()
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    pending = 0
    for run in sync(folder, options.uri, ended=options.ended, prune=options.prune, trust=options.trust):
        pending += run.state == "pending"
        states = {"sent": f"sent, {run.entries} new entries", "running": "is still being written by its process"}
        state = states.get(run.state, f"not all sent: {run.reason}")
        refused = f", {run.rejected} refused" if run.rejected else ""
        lost = f", {run.lost} lost" if run.lost else ""
        sys.stdout.write(f"{run.run_id or run.journal.stem}: {state}{refused}{lost}\n")
        sys.stdout.writelines(f"  {note}\n" for note in run.notes)
        sys.stdout.flush()  # the next one may take long
    if pending:
        sys.stdout.write(f"{pending} journals are not all sent\n")
    return 1 if pending else 0


def _compare(options: argparse.Namespace) -> int:
    from rich.console import Console

    from grad_callbacks.tracking.comparison.compare import EXPERIMENT, compare
    from grad_callbacks.tracking.comparison.over_seeds import has_several_seeds, over_seeds
    from grad_callbacks.tracking.comparison.report import record_comparison, write_comparison
    from grad_callbacks.tracking.comparison.tables import comparison_table, over_seeds_table

    client, _ = _existing(options.store)
    experiment = options.experiment or options.named or EXPERIMENT
    baseline = dict(_pair(text) for text in options.baseline) or None
    table = compare(
        client, experiment, metric=options.metric, group=options.group, baseline=baseline, sweep=options.sweep
    )
    if table.empty:
        raise ValueError(f"the experiment {experiment!r} has no runs yet")
    console = Console()
    if has_several_seeds(table) and not options.runs:
        console.print(over_seeds_table(over_seeds(table)))
    else:
        console.print(comparison_table(table))
    if options.csv:
        table.to_csv(options.csv, index=False)
    if options.picture:
        from grad_callbacks.tracking.comparison.picture import comparison_picture

        comparison_picture(table).savefig(options.picture, dpi=150)
    if options.out:
        write_comparison(table, options.out)
        console.print(f"Written to {options.out}: comparison.html, and tables as CSV and parquet.")
    if not options.no_log and (parent := record_comparison(client, table)):
        console.print(f"Logged into the sweep's run {parent}, under comparison/.")
    return 0


def _alerts(options: argparse.Namespace) -> int:
    from rich.console import Console

    from grad_callbacks.tracking.all_alerts import alerts_table, all_alerts
    from grad_callbacks.tracking.secrets.masking import mask

    client, _ = _existing(options.store)
    rows = mask(all_alerts(client, options.experiment))
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    elif rows:
        Console().print(alerts_table(rows))
    else:
        sys.stdout.write("no run in this store has an alert\n")
    return 0


def _open(options: argparse.Namespace) -> int:
    from grad_callbacks.tracking.run_address import run_address

    client, store = _existing(options.store)
    address = run_address(client, store, options.run_id)
    sys.stdout.write(f"{address}\n")
    has_screen = sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))
    if has_screen and not options.only_print:  # elsewhere it would be a browser in this very terminal
        import webbrowser

        webbrowser.open(address)
    return 0


def _existing(store: str | None) -> tuple[MlflowClient, str]:
    """Return the client of a store that is there, and the store's address."""
    from grad_callbacks.tracking.store import check_exists, default_store, prepare_store

    store = store or default_store()
    check_exists(store)
    return prepare_store(store), store


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError(f"--baseline takes NAME=VALUE, got {text!r}")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
