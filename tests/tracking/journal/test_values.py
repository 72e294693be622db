from __future__ import annotations

import json
import logging
import os
import threading
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from omegaconf import OmegaConf

from grad_callbacks.tracking import JournaledMLFlowLogger
from grad_callbacks.tracking.journal.entries import batch_entries, metrics_entry, params_entry, tags_entry
from grad_callbacks.tracking.journal.values import flattened, plain
from tests.support.servers import artifacts_of, the_run


class Hostile:
    """Raises whatever is asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __int__(self) -> int:
        raise RuntimeError("no number")


@dataclass
class Settings:
    rate: float
    thing: Any


def loop() -> dict[str, Any]:
    made: dict[str, Any] = {"lr": 0.1}
    made["self"] = [made]
    return made


def deep() -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(3000):
        made = {"a": made}
    return made


NO_NUMBERS = {
    "huge": 10**400,
    "digits": 10**5000,
    "meta": torch.empty(1, device="meta"),
    "many": torch.zeros(3),
    "none": None,
    "text": "api_key=abc",
    "object": Hostile(),
    "complex": 1j,
    "list": [1.0],
    "empty": torch.zeros(0),
    "surrogate": "\ud800",
}
ANYTHING = NO_NUMBERS | {
    "loop": loop(),
    "deep": deep(),
    "set": {1},
    "bytes": b"\xff",
    "nested": {"object": Hostile(), "list": [Hostile()]},
    "missing": OmegaConf.create({"a": "???", "b": 1}),
    "record": Settings(0.1, Hostile()),
    "names\ud800pace": Namespace(a=Namespace(b=Hostile())),
    "nul": "a\0b",
    3: "a number as a name",
    None: "none as a name",
    Hostile: Hostile,
}


def test_what_is_not_one_number_is_left_out_and_told_once_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        for step in range(2):
            entry = metrics_entry(NO_NUMBERS | {"good": torch.tensor(2.0), "numpy": np.float32(1.5)}, step)
            assert entry["m"] == {"good": 2.0, "numpy": 1.5}
    told = [record.getMessage() for record in caplog.records]
    assert [sum(f"metric {name} is" in message for message in told) for name in NO_NUMBERS] == [1] * len(NO_NUMBERS)
    assert not any("abc" in message for message in told)


@pytest.mark.parametrize("step", [Hostile(), "x", float("nan"), float("inf"), torch.zeros(2), None, 3, torch.tensor(3)])
def test_a_step_of_any_kind_raises_nothing(step: Any) -> None:
    json.dumps(metrics_entry({"loss": 1.0}, step, step))
    batch_entries([Metric("loss", 1.0, 0, step), Metric("loss", Hostile(), 0, 0)])


def test_parameters_and_tags_of_any_kind_become_texts_that_can_be_stored() -> None:
    for texts in (params_entry(ANYTHING)[0]["p"], tags_entry(ANYTHING)["g"]):  # type: ignore[arg-type]
        assert len(texts) == len(ANYTHING)
        assert texts["object"] == "<Hostile>"
        for name, text in texts.items():
            assert b"\0" not in (name + text).encode()
    flat = flattened(plain(ANYTHING))
    assert (flat["loop/lr"], flat["loop/self"]) == (0.1, ["..."])
    assert flat["missing/b"] == 1
    assert flat["record/rate"] == 0.1


def test_what_an_object_says_of_itself_is_masked() -> None:
    settings = Namespace(password="hush", lr=0.1)
    assert params_entry({"x": settings})[0]["p"] == {"x": "Namespace(password='***', lr=0.1)"}


def test_names_of_nested_parameters_that_agree_stay_two() -> None:
    assert flattened({"a": {"b": 1}, "a/b": 2}) == {"a/b": 1, "a/b.2": 2}


def test_nothing_that_is_logged_ends_a_training(client: MlflowClient, tmp_path: Path) -> None:
    made = JournaledMLFlowLogger("plugin", run_name="n\ud800me", tags={"a@b": Hostile(), "fine": 1})
    made.log_metrics(NO_NUMBERS | {"good": 1.0}, step=1)
    made.log_metrics({"good": 2.0}, step=Hostile())  # type: ignore[arg-type]
    made.log_hyperparams(ANYTHING)  # type: ignore[arg-type]
    made.log_hyperparams(Hostile())  # type: ignore[arg-type]
    made.log_hyperparams(None)  # type: ignore[arg-type]
    to, run_id = made.experiment, str(made.run_id)
    for name, value in ANYTHING.items():
        to.log_param(run_id, name, value)  # type: ignore[arg-type]
        to.set_tag(run_id, name, value)  # type: ignore[arg-type]
        to.log_metric(run_id, "any", value)  # type: ignore[arg-type]
        to.log_dict(run_id, {"value": value}, "dict.json")
        to.log_text(run_id, value, "text.txt")  # type: ignore[arg-type]
        to.log_figure(run_id, value, "figure.png")  # type: ignore[arg-type]
        to.log_table(run_id, {"a": [value]}, "table.json")
        to.delete_tag(run_id, str(name))
    to.log_batch(run_id, [Metric("m", Hostile(), 0, 0)], [Param("p", Hostile())], [RunTag("t", "\ud800")])
    (tmp_path / "a#b.txt").write_text("a")
    to.log_artifact(run_id, tmp_path / "a#b.txt", "../up")
    to.log_text(run_id, "text", "../x\ud800.txt")
    to.log_dict(run_id, {"a": np.int64(3), "b": torch.tensor(0.5), "password": "hush"}, "/plain.json")
    made.finalize("success")
    made.close()
    run = the_run(client, "plugin")
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"good": 1.0}
    assert run.data.params["object"] == "<Hostile>"
    assert run.data.tags["fine"] == "1"
    kept = artifacts_of(client, run.info.run_id)
    assert any(path.startswith("up-") and "/a_b-" in path for path in kept)
    assert any(path.startswith("x_ud800-") for path in kept)
    assert not list((tmp_path / "mlflow-journal").iterdir()), "nothing keeps the journal from being sent"


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_read_as_an_artifact(
    kind: str, client: MlflowClient, store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Reading a pipe would wait for somebody to write, and reading a device would not end."""
    made = JournaledMLFlowLogger("plugin", tracking_uri=store, journal_dir=tmp_path / "journal")
    local = Path("/dev/null") if kind == "device" else tmp_path / "pipe"
    if kind == "pipe":
        os.mkfifo(local)
    logging_it = threading.Thread(target=made.experiment.log_artifact, args=(made.run_id, local), daemon=True)
    logging_it.start()
    logging_it.join(20)
    assert not logging_it.is_alive()
    assert f"artifact {local} is not logged: it is no file" in caplog.text
    made.finalize("success")
    made.close()
    assert artifacts_of(client, the_run(client, "plugin").info.run_id) == ["context/environment.yaml"]
