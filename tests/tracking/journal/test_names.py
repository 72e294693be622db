from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.uri import validate_path_is_safe
from mlflow.utils.validation import _validate_metric_name, _validate_param_name, _validate_tag_name

from grad_callbacks.tracking.journal.entries import metrics_entry, params_entry, tags_entry
from grad_callbacks.tracking.journal.names import legal_name, legal_path


@pytest.mark.parametrize("name", ["train/loss", "损失", "精度", "acc:top1", "a b", "été", "val/acc.top-1_x", "x" * 250])
def test_a_name_that_mlflow_takes_stays(name: str) -> None:
    assert legal_name(name) == name


@pytest.mark.parametrize(
    ("name", "legal"),
    [
        ("acc(1)@[2]", "acc_1_2"),
        ("a//b/../c", "a/c"),
        ("../up", "up"),
        ("/root/", "root"),
        ("(((", "unnamed"),
        ("", "unnamed"),
        ("loss\n", "loss"),
        ("x\ud800y\0", "x_y"),
        ("x" * 400, "x" * 241),
        (None, "None"),
        (3, "3"),
    ],
)
def test_another_name_is_made_legal(name: object, legal: str) -> None:
    assert re.fullmatch(rf"{re.escape(legal)}(-[0-9a-f]{{8}})?", legal_name(name))
    assert legal_name(legal_name(name)) == legal_name(name)


def test_a_changed_name_is_the_same_in_every_process() -> None:
    assert legal_name("loss@a") == "loss_a-debca075"


@given(st.text(max_size=300))
def test_mlflow_takes_every_name(name: str) -> None:
    legal = legal_name(name)
    assert len(legal) <= 250
    _validate_metric_name(legal)
    _validate_param_name(legal)
    _validate_tag_name(legal)


@given(st.lists(st.text("ab@#/. :()é", max_size=6), unique=True, max_size=20))
def test_no_two_names_fall_together(names: list[str]) -> None:
    values = dict.fromkeys(names, 1.0)
    assert len(metrics_entry(values, 0)["m"]) == len(names)
    assert len(params_entry(values)[0]["p"]) == len(names)
    assert len(tags_entry(values)["g"]) == len(names)


def test_six_names_stay_six_and_what_was_changed_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    names = ["损失", "精度", "told@a", "told#a", "acc:top1", "acctop1"]
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        entries = [metrics_entry(dict.fromkeys(names, 1.0), step) for step in range(3)]
    assert all(len(entry["m"]) == 6 for entry in entries)
    assert {"损失", "精度", "acc:top1", "acctop1"} < entries[0]["m"].keys() == entries[2]["m"].keys()
    assert [sum(name in record.getMessage() for record in caplog.records) for name in ("told@a", "told#a")] == [1, 1]


def test_keys_that_are_written_alike_stay_apart() -> None:
    assert set(params_entry({1: "number", "1": "text"})[0]["p"].values()) == {"number", "text"}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("path", "legal"),
    [
        ("", ""),
        (".", ""),
        ("a//b/", "a/b"),
        ("tables/损失.json", "tables/损失.json"),
        ("a b:c.txt", "a b:c.txt"),
    ],
)
def test_a_path_that_can_be_used_stays(path: str, legal: str) -> None:
    assert legal_path(path) == legal


@pytest.mark.parametrize(
    ("path", "legal"),
    [
        ("../up.txt", r"up-[0-9a-f]{8}\.txt"),
        ("/etc/name", "etc/name-[0-9a-f]{8}"),
        ("..", "unnamed-[0-9a-f]{8}"),
        ("a#b.json", r"a_b-[0-9a-f]{8}\.json"),
        ("C:/x", "C_/x-[0-9a-f]{8}"),
        ("a\\b", "a_b-[0-9a-f]{8}"),
        ("%2e%2e/x", "_2e_2e/x-[0-9a-f]{8}"),
        ("a\ud800.txt", r"a_ud800-[0-9a-f]{8}\.txt"),
    ],
)
def test_a_path_that_leads_elsewhere_or_cannot_be_stored_is_changed(path: str, legal: str) -> None:
    assert re.fullmatch(legal, legal_path(path))


@given(st.text(max_size=30) | st.text("./\\#%:2eEfFa", max_size=30) | st.just("é" * 300))
def test_every_path_is_safe(path: str) -> None:
    legal = legal_path(path)
    validate_path_is_safe(legal)
    assert legal_path(legal) == legal
    assert all(len(part.encode()) < 255 for part in legal.split("/"))
