"""Rows: values, names and files that a store cannot take, or that look as if."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch

from experiments.reliability import told
from experiments.reliability.cases import COMPLETE, TOLD, Case, Row, judge
from experiments.reliability.saying import listening, synced
from experiments.reliability.stores import Store
from experiments.reliability.truth import ANY, Found, metrics, single
from experiments.reliability.workplace import Workplace

Poison = Callable[[Any, Any], None]  # the logger, its client
GOOD = "good"  # the name of all that is not poison
LONG = 300


class Raises:
    """An object that cannot be turned into anything."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __float__ = __str__  # type: ignore[assignment]


def _loop() -> dict[str, Any]:
    loop: dict[str, Any] = {"a": 1}
    loop["loop"] = loop
    return loop


NAMES = {
    "chinese": "损失",
    "at and hash": "loss@a",
    "colon": "acc:top1",
    "empty": "",
    "blank": " ",
    "slash": "/",
    "dots": "..",
    "up": "../../up",
    "double slash": "a//b",
    "absolute": "/abs",
    "long": "x" * LONG,
    "surrogate": "lone \ud800",
    "zero byte": "zero\0byte",
    "new line": "new\nline",
    "emoji": "🙂",
    "quote": 'it\'s "quoted"',
    "backslash": "C:\\x",
    "ends with a dot": "dot.",
    "number": 3,
    "none": None,
}
VALUES: dict[str, Any] = {
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
    "10**400": 10**400,
    "tiny": 5e-324,
    "bool": True,
    "none": None,
    "text": "text",
    "complex": 1j,
    "decimal": Decimal("1.5"),
    "many": torch.ones(3),
    "meta": torch.ones(1, device="meta"),
    "half": torch.tensor(0.1, dtype=torch.bfloat16),
    "raises": Raises(),
    "loop": _loop(),
    "list": [1, 2],
}
STEPS: dict[str, Any] = {
    "2**63": 2**63,
    "2**63-1": 2**63 - 1,
    "-2**63-1": -(2**63) - 1,
    "-1": -1,
    "1.5": 1.5,
    "nan": float("nan"),
    "text": "3",
    "10**30": 10**30,
}
TIMES: dict[str, Any] = {"2**63": 2**63, "10**30": 10**30, "-1": -1, "0": 0, "-2**63": -(2**63), "nan": float("nan")}
TEXTS: dict[str, Any] = {
    "huge": "x" * 1_000_000,
    "surrogate": "lone \ud800 one",
    "zero byte": "zero\0byte",
    "new lines": "a\nb\r\nc",
    "none": None,
    "empty": "",
    "raises": Raises(),
    "loop": _loop(),
    "bytes": b"\xff\xfe",
}


def _poisons() -> dict[str, Poison]:
    made: dict[str, Poison] = {}
    for key, name in NAMES.items():
        made[f"metric named {key}"] = lambda logger, client, name=name: logger.log_metrics({name: 77.5}, 7)
        made[f"parameter named {key}"] = lambda logger, client, name=name: logger.log_hyperparams({name: "poison"})
        made[f"tag named {key}"] = lambda logger, client, name=name: client.set_tag(logger.run_id, name, "poison")
        made[f"artifact named {key}"] = lambda logger, client, name=name: client.log_text(
            logger.run_id, "poison", f"poison/{name}"
        )
        made[f"artifact in folder {key}"] = lambda logger, client, name=name: client.log_artifact(
            logger.run_id, _file(), None if name is None else str(name)
        )
    for count, (key, value) in enumerate(VALUES.items()):  # names of their own: a name is warned about once a process
        made[f"metric of {key}"] = lambda logger, client, value=value, name=f"poison{count}": logger.log_metrics(
            {name: value}, 7
        )
    for key, value in STEPS.items():
        made[f"step {key}"] = lambda logger, client, value=value, name=f"poison at {key}": logger.log_metrics(
            {name: 77.5}, value
        )
    for key, value in TIMES.items():
        made[f"time {key}"] = lambda logger, client, value=value, name=f"poison since {key}": client.log_metric(
            logger.run_id, name, 77.5, value, 7
        )
    for key, value in TEXTS.items():
        made[f"parameter of {key}"] = lambda logger, client, value=value: logger.log_hyperparams({"poison": value})
        made[f"tag of {key}"] = lambda logger, client, value=value: client.set_tag(logger.run_id, "poison", value)
        made[f"text of {key}"] = lambda logger, client, value=value: client.log_text(logger.run_id, value, "poison.txt")
        if key in ("none", "empty"):  # which leave the name as it is
            continue
        made[f"run named {key}"] = lambda logger, client, value=value: client.update_run(logger.run_id, name=value)
    made["unknown status"] = lambda logger, client: client.set_terminated(logger.run_id, "NONSENSE")
    made["end at 10**30"] = lambda logger, client: client.set_terminated(logger.run_id, "FINISHED", 10**30)
    made["end at text"] = lambda logger, client: client.set_terminated(logger.run_id, "FINISHED", "noon")
    made["file that is gone"] = lambda logger, client: client.log_artifact(logger.run_id, "poison/not/here.txt")
    made["file that is a pipe"] = lambda logger, client: client.log_artifact(logger.run_id, _pipe())
    made["file with a bad name"] = lambda logger, client: client.log_artifact(logger.run_id, _file(b"poison\xff.txt"))
    made["tag that is not there"] = lambda logger, client: client.delete_tag(logger.run_id, "poison")
    made["parameter that changes"] = lambda logger, client: logger.log_hyperparams({GOOD: "poison"})
    made["5000 metrics at once"] = lambda logger, client: logger.log_metrics({f"poison{i}": i for i in range(5000)}, 7)
    made["300 parameters at once"] = lambda logger, client: logger.log_hyperparams(
        {f"poison{i}": "x" * 3000 for i in range(300)}
    )
    return made


def _file(name: bytes = b"poison.txt") -> str:
    path = os.path.join(os.getcwdb(), name)
    with open(path, "w") as file:
        file.write("poison")
    return os.fsdecode(path)


def _pipe() -> str:
    path = Path("poison-pipe")
    if not path.exists():
        os.mkfifo(path)
    return str(path)


POISONS = _poisons()


def _over_sqlite(place: Workplace, case: str) -> Case:
    return _poisoned(place, case, place.store)


def _over_http(place: Workplace, case: str) -> Case:
    return _poisoned(place, case, place.server)


def _poisoned(place: Workplace, case: str, store: Store) -> Case:
    """Log something good, the poison, and something good, to a store that answers; then ``sync``."""
    from grad_callbacks.tracking import JournaledMLFlowLogger, told_once

    told_once._told.clear()  # a process warns once about a name, and each case stands for a process of its own
    store.empty()
    folder, ended = place.new_folder(), ""
    with listening() as text:
        logger = JournaledMLFlowLogger(
            "poisoned", "kept", tracking_uri=store.uri, journal_dir=folder, finalize_timeout=5
        )
        logger.log_hyperparams({GOOD: 1})
        logged = [single("param", GOOD, 1), single("experiment", "poisoned")]
        logged.append(single("artifact", "context/environment.yaml", ANY))
        for step in range(10):
            logger.log_metrics({GOOD: step}, step)
            logged.append(metrics({GOOD: step}, step))
            if step == 5:
                before = len(text.getvalue())
                try:
                    POISONS[case](logger, logger.experiment)
                except Exception as error:
                    ended = f"{type(error).__name__}: {error}"
                text.write("\n")
        logger.finalize("success")
        logger.close()
    said = text.getvalue()[before:]
    if folder.is_dir() and list(folder.glob("*.jsonl")):
        said += synced(folder, store.uri)
    if ended:
        return Case(case, "ended", f"the call raises {ended[:200]}")
    runs = store.runs()
    result = judge(case, [*logged, single("status", "FINISHED")], [_good(run) for run in runs], said)
    if result.outcome != COMPLETE:
        return Case(case, result.outcome, f"around it: {result.detail}", result.told)
    kept = [item for run in runs for item in run.items if _is_poison(item)]
    if kept:
        return Case(case, COMPLETE, f"kept as {kept[0][:2]}"[:100])
    if told.losses(said) or case in ("tag that is not there", "unknown status", "end at text", "end at 10**30"):
        return Case(case, TOLD, "not kept", said)
    return Case(case, "silent", "not kept, and nothing said", said)


def _good(run: Found) -> Found:
    return Found(run.run_id, type(run.items)({item: n for item, n in run.items.items() if not _is_poison(item)}))


def _is_poison(item: tuple[str, ...]) -> bool:
    """True for all that only the poison can have brought into a run."""
    if item[0] == "name":
        return item[1] != "kept"
    own = item[0] in ("tag",) and item[1].startswith(("mlflow.", "grad."))
    known = item[1] in (GOOD, "context/environment.yaml") and item[-1] != "poison"
    return item[0] in ("metric", "param", "tag", "artifact") and not own and not known


ROWS = [
    Row(
        "poison",
        "poison over SQLite",
        f"{len(POISONS)} odd values, names, steps, times, files",
        list(POISONS),
        _over_sqlite,
        25,
    ),
    Row("poison", "poison over HTTP", "the same, to a server", list(POISONS), _over_http, 12),
]
