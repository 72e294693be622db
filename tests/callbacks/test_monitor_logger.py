"""What a monitor tells the Trainer's logger."""

from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from grad_callbacks import ClipNorm, GradientGuard, GradientMonitor
from tests.support.helpers import Poisoned, Regression, fit, mlp


def test_metrics_go_to_the_trainers_logger(tmp_path: Any) -> None:
    fit(
        Poisoned(mlp(4, 8, 8, 2), factors={15: 1e3}),
        GradientGuard({"exploding": [ClipNorm(0.1)]}),
        logger=CSVLogger(tmp_path, name=None, version=""),
        log_every_n_steps=10,
    )
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    keys = lines[0].split(",")
    names = "norm norm_clipped clip_coef decay_per_layer nonfinite_steps alerts lr_scale lr_effective"
    expected = {f"grad/{name}" for name in names.split()} | {"grad/update_ratio_min", "grad/update_ratio_max"}
    assert expected <= set(keys)
    rows = [dict(zip(keys, line.split(","), strict=True)) for line in lines[1:]]
    assert [int(row["step"]) for row in rows] == [0, 9, 15, 19, 29, 31], "at intervals, at the alert and at the end"
    assert rows[2]["grad/alerts"] == "1.0"


@pytest.mark.parametrize("accumulate", [1, 4])
def test_each_step_is_logged_once(accumulate: int, tmp_path: Any) -> None:
    class Log(CSVLogger):
        steps: list[int] = []  # noqa: RUF012  # a fresh class for each test

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            if "grad/norm" in metrics:
                self.steps.append(int(step or 0))

    logger = Log(tmp_path)
    fit(
        Regression(mlp(4, 2)),
        GradientMonitor(),
        logger=logger,
        log_every_n_steps=1,
        accumulate_grad_batches=accumulate,
    )
    assert logger.steps == list(range(32 // accumulate))


def test_the_norm_after_the_trainers_own_clipping_is_told(tmp_path: Any) -> None:
    logger = CSVLogger(tmp_path, name=None, version="")
    fit(Regression(mlp(4, 8, 2)), GradientMonitor(), logger=logger, gradient_clip_val=0.01, log_every_n_steps=1)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    values = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    assert float(values["grad/norm"]) > 0.01
    assert float(values["grad/norm_clipped"]) == pytest.approx(0.01)


class Attentive(nn.Module):
    """Attention over the four entries of an input."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(1, 24), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.embed(x[..., None]).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*parts)
        return self.head(mixed.flatten(1))  # type: ignore[no-any-return]


def test_attention_is_logged_as_last_measured_and_only_where_there_is_some(tmp_path: Any) -> None:
    for name, model in {"with": Attentive(), "without": mlp(4, 8, 2)}.items():
        logger = CSVLogger(tmp_path, name=None, version=name)
        fit(Regression(model), GradientMonitor(), logger=logger, log_every_n_steps=10)
    keys, *lines = (tmp_path / "with" / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(keys.split(","), line.split(","), strict=True)) for line in lines]
    entropies = [float(row["grad/attention_entropy"]) for row in rows]
    assert all(0 < entropy <= 1 for entropy in entropies)
    assert len(set(entropies)) == 2, "measured in the first reading and in the 26th"
    assert all(float(row["grad/attention_score"]) > 0 for row in rows)
    assert "attention" not in (tmp_path / "without" / "metrics.csv").read_text()
