"""Rows: a server of the oldest MLflow that the package claims to support."""

from __future__ import annotations

from experiments.reliability.cases import Case, Row, judge
from experiments.reliability.kills import PATIENCE
from experiments.reliability.prepared import prepare
from experiments.reliability.saying import synced
from experiments.reliability.training import noted, train
from experiments.reliability.truth import single
from experiments.reliability.workplace import Workplace


def _old(place: Workplace, case: str) -> Case:
    if place.old_python is None:
        return Case(case, "not run", "no --old-server was given")
    server = place.old_server
    server.empty()
    if case == "trained":
        folder = place.new_folder()
        folder.mkdir()
        child = place.children.start(train, str(folder), server.uri, 60)
        if child.wait(PATIENCE) != 0:
            child.kill()
            return Case(case, "ended", child.said[-300:])
        said = child.said
        if (folder / "journal").is_dir():
            said += synced(folder / "journal", server.uri)
        return judge(case, [*noted(folder), single("status", "FINISHED")], server.runs(), said)
    if case == "sent later":
        journal = place.prepared.copy_to(place.new_folder())
    else:
        journal = prepare(place.new_folder(), server.uri)
    said = synced(journal.folder, server.uri)
    if case == "sent twice":
        said += synced(journal.folder, server.uri)
        journal.journal.with_suffix(".sent").unlink()
        said += synced(journal.folder, server.uri)
    return judge(case, [journal.header, *journal.logged], server.runs(), said, journal.journal.stem)


ROWS = [
    Row(
        "old",
        "oldest supported server",
        "MLflow 3.10 serves: trained, logged, sent later, sent again without `.sent`",
        ["trained", "logged", "sent later", "sent twice"],
        _old,
    )
]
