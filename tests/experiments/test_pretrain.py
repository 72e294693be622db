"""Pre-training with and without a guard, tiny and on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments.models import GPT
from experiments.pretrain import Pretrained, composed, main, picture, table


@pytest.mark.slow
def test_all_runs_are_trained_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--size", "tiny", "--device", "cpu", "--folder", str(tmp_path), "--rates", "1"]
    assert main([*options, "--treatments", "none", "zclip", "guard", "clip", "guard_and_clip"]) == 0
    runs = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert len(runs) == 5
    assert all(len(one["losses"]) == 60 and one["milliseconds"] > 0 for one in runs.values())
    assert runs["tiny-none-x1"]["losses"] == runs["tiny-guard-x1"]["losses"], "a healthy run is left alone"
    assert runs["tiny-clip-x1"]["losses"] == runs["tiny-guard_and_clip-x1"]["losses"]
    assert runs["tiny-none-x1"]["losses"][-1] < runs["tiny-none-x1"]["losses"][0] - 0.3
    assert "| ×1 | `zclip` |" in (tmp_path / "pretrain.md").read_text()
    assert (tmp_path / "pretrain.png").stat().st_size > 10_000

    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert main([*options, "--treatments", "none", "guard"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")} == before, "nothing is trained twice"
    assert capsys.readouterr().out.count("nats") == 2


def test_the_large_size_is_gpt_2() -> None:
    cfg = composed("gpt2", "cuda", 3.0)
    assert cfg.optimizer.lr == pytest.approx(1.8e-3)
    assert (cfg.trainer.accelerator, cfg.trainer.precision) == ("gpu", "bf16-mixed")
    size = {name: cfg.model[name] for name in ("depth", "width", "heads")}
    with torch.device("meta"):
        model = GPT(cfg.data.vocabulary, cfg.data.vocabulary, context=1024, **size)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(124.4e6, rel=0.001)


def test_what_could_not_be_trained_or_is_not_finite_is_told(tmp_path: Path) -> None:
    runs = [
        Pretrained("none", 1.0, 5.0, 20.0, [6.0, 5.0]),
        Pretrained("guard", 1.0, None, 21.0, [6.0, None], [(7, "exploding")], [(7, "Rollback")], "repaired"),
        Pretrained("clip", 1.0, error="OutOfMemoryError: 140 GiB"),
    ]
    text = table(runs, "made")
    assert "| ×1 | `guard` | – | 21.0 | +5.0% | exploding 7 | Rollback 7 | repaired |" in text
    assert "| ×1 | `clip` | – | – | – | – | – | OutOfMemoryError: 140 GiB |" in text
    picture(runs).savefig(tmp_path / "made.png")
    assert (tmp_path / "made.png").stat().st_size > 10_000
