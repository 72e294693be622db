"""A single gradient that would starve an adaptive optimizer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from grad_callbacks import GradientGuard, GradientMonitor
from grad_callbacks.detection.rules import Outlier
from tests.support.helpers import Poisoned, Regression, batches, fit, mlp, reading


def judged(sizes: dict[int, float], decay: float, steps: int = 60) -> list[int]:
    """The steps of the alerts, where each batch is found to be to blame."""
    rule, found = Outlier(), []
    for step in range(steps):
        alert = rule.judge(reading([sizes.get(step, 1.0)] * 3, step, squares_decay=decay))
        if alert is not None and rule.is_borne_out(replace(alert, cause="bad batch"), is_tried=True):
            found.append(alert.step)
    return found


class BadBatch(Poisoned):
    """The factor belongs to the batch, so that the batch before is as usual."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor | None:
        return Regression.training_step(self, batch, batch_idx) * self.factors.get(batch_idx, 1.0)


@pytest.mark.parametrize("decay", [0.9, 0.95, 0.99, 0.999])
def test_the_steps_after_it_are_as_short_as_the_rule_says(decay: float) -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    adam = torch.optim.Adam([weight], lr=1.0, betas=(0.0, decay))

    def length(gradient: float) -> float:
        weight.grad, before = torch.tensor([gradient]), float(weight)
        adam.step()
        return abs(float(weight) - before)

    for _ in range(20_000):
        usual = length(1.0)
    size = math.sqrt((3.0**2 - 1) / (1 - decay))
    length(size)
    assert usual / length(1.0) == pytest.approx(3.0, rel=0.06)
    assert judged({40: 1.05 * size}, decay) == [40]
    assert judged({40: 0.95 * size}, decay) == []


def test_nothing_is_said_where_no_squares_are_kept_and_before_there_is_a_usual_norm() -> None:
    assert judged({40: 1e6}, math.nan) == []
    assert judged({5: 1e6}, 0.95) == []


def test_several_in_a_row_are_one() -> None:
    assert judged({40: 1e4, 43: 1e4, 50: 1e5}, 0.95) == [40]


def unproven(sizes: dict[int, float], decay: float, steps: int = 90) -> list[tuple[int, str]]:
    """The alerts where no batch can be tried again."""
    rule, found = Outlier(), []
    for step in range(steps):
        alert = rule.judge(reading([sizes.get(step, 1.0)] * 3, step, squares_decay=decay))
        if alert is not None and rule.is_borne_out(alert, is_tried=False):
            found.append((alert.step, alert.severity))
    return found


def test_where_nothing_can_be_tried_the_norms_that_follow_decide() -> None:
    assert unproven({40: 1e4}, 0.95) == [(41, "critical")]
    assert unproven(dict.fromkeys(range(40, 47), 1e4), 0.95) == [(47, "critical")], "several in a row"
    assert unproven({40: 1e4, 41: 50.0}, 0.95) == [(41, "critical")], "not quite as before yet"
    assert unproven(dict.fromkeys(range(40, 90), 1e4), 0.95) == [], "a new scale"
    assert unproven(dict.fromkeys(range(40, 70), 1e4), 0.95) == [], "for a while"
    assert unproven({40: 30.0}, 0.95) == [], "little harm"


def adamw(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95))  # type: ignore[arg-type]


def trained(
    kind: type[Poisoned], factors: dict[int, float], *callbacks: GradientMonitor, steps: int = 256
) -> torch.Tensor:
    """The weights at the end."""
    torch.manual_seed(0)
    module = kind(mlp(4, 16, 16, 2), adamw, factors=factors)
    fit(module, *callbacks, data=batches(steps))
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


@pytest.mark.parametrize(
    ("kind", "seen_at", "severity", "remedy"),
    [(BadBatch, 40, "warning", "ClipNorm"), (Poisoned, 41, "critical", "Rollback")],
)
def test_one_loss_far_too_large_is_made_harmless(
    kind: type[Poisoned], seen_at: int, severity: str, remedy: str
) -> None:
    unhurt, hurt = trained(kind, {}), trained(kind, {40: 1e4})
    guard, monitor = GradientGuard(), GradientMonitor()
    saved = trained(kind, {40: 1e4}, guard)
    trained(kind, {40: 1e4}, monitor)
    for watcher in (guard, monitor):
        [alert] = watcher.alerts
        assert (alert.kind, alert.step, alert.severity, alert.cause) == ("exploding", seen_at, severity, "bad batch")
    assert [(made.step, made.remedy) for made in guard.interventions] == [(seen_at, remedy)]
    assert (saved - unhurt).norm() < 0.2 * (hurt - unhurt).norm()


def test_a_loss_that_has_another_scale_from_now_on_is_no_outlier() -> None:
    monitor = GradientMonitor(rules=["Outlier"])
    trained(Poisoned, dict.fromkeys(range(40, 1000), 1e4), monitor)
    assert monitor.alerts == []
