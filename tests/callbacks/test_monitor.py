"""GradientMonitor on real Trainers."""

from __future__ import annotations

import logging
import math
import pickle
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.demos.boring_classes import BoringModel, ManualOptimBoringModel, RandomDataset
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from grad_callbacks import Alert, ClipNorm, Exploding, GradientGuard, GradientMonitor, Rule
from tests.support.helpers import SGD, Poisoned, Regression, batches, fit, mlp, trainer


class Spy(Callback):
    """Writes down the true global norm of every optimizer step, in float64."""

    def __init__(self) -> None:
        self.norms: dict[int, float] = {}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.norms[trainer.global_step] = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))


def global_norms(monitor: GradientMonitor) -> dict[int, float]:
    norms = monitor.history().groupby("step")["norm"].agg(lambda norm: np.sqrt(np.sum(norm.to_numpy() ** 2)))
    return {int(step): float(norm) for step, norm in norms.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 3},
        {"max_epochs": 2, "accumulate_grad_batches": 5},
        {"precision": "bf16-mixed"},
        {"precision": "64-true"},
        {"gradient_clip_val": 0.1},
    ],
    ids=str,
)
def test_history_holds_the_true_norms_of_every_step(options: dict[str, Any]) -> None:
    monitor, spy = GradientMonitor(), Spy()
    fit(Regression(mlp(4, 8, 8, 2)), spy, monitor, **options)
    assert global_norms(monitor) == pytest.approx(spy.norms, rel=1e-5)
    frame = monitor.history()
    assert frame["layer"].unique().tolist() == ["model.0", "model.2", "model.4"]
    assert frame["depth"].unique().tolist() == [0, 1, 2]
    assert frame["weight_norm"].notna().all()
    assert frame.loc[frame["step"] < 20, "update_ratio"].gt(0).all()


def test_a_healthy_run_is_called_healthy() -> None:
    monitor = GradientMonitor()
    fit(Regression(mlp(4, 8, 2)), monitor)
    assert (monitor.alerts, monitor.interventions, monitor.verdict, monitor.outcome) == ([], [], "healthy", "healthy")
    assert "healthy" in monitor.report()
    assert "No alert was raised" in monitor.report()


@pytest.mark.parametrize(("factor", "kind"), [(1e4, "exploding"), (math.nan, "nonfinite"), (math.inf, "nonfinite")])
def test_alerts_reach_list_logging_callable_and_report(
    factor: float, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Alert] = []
    monitor = GradientMonitor(on_alert=told.append)
    with caplog.at_level(logging.WARNING, "grad_callbacks"):
        fit(Poisoned(mlp(4, 8, 8, 2), factors={15: factor}), monitor)
    assert monitor.alerts[0].kind == monitor.verdict == kind
    assert monitor.alerts[0].step == 15
    assert told == monitor.alerts
    assert f"step 15: {kind} gradients" in caplog.text
    assert monitor.outcome == "unrepaired"
    assert f"step 15: {kind} gradients" in monitor.report()


def test_it_never_changes_training() -> None:
    def weights(*callbacks: Callback) -> list[torch.Tensor]:
        torch.manual_seed(0)
        module = Poisoned(mlp(4, 8, 8, 2), factors={15: 1e4, 20: math.nan})
        fit(module, *callbacks)
        return [p.detach() for p in module.parameters()]

    for a, b in zip(weights(), weights(GradientMonitor()), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_it_measures_every_n_steps() -> None:
    monitor = GradientMonitor(every_n_steps=5)
    fit(Regression(mlp(4, 2)), monitor)
    assert monitor.history()["step"].tolist() == [0, 5, 10, 15, 20, 25, 30]


def test_a_short_last_window_is_not_alarming() -> None:
    monitor = GradientMonitor()
    fit(Regression(mlp(4, 8, 2)), monitor, data=batches(33), accumulate_grad_batches=16, max_epochs=8)
    assert monitor.alerts == []
    assert monitor.history()["step"].nunique() == 24


class Two(LightningModule):
    """Two optimizers that take turns, in manual optimization; the second starts from the first one's gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.one, self.two = mlp(4, 4, 2), mlp(4, 2)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        inputs, targets = batch
        for optimizer, factor in zip(self.optimizers(), (1.0, 2.0), strict=True):
            loss = factor * nn.functional.mse_loss(self.one(inputs) + self.two(inputs), targets)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(m.parameters(), lr=0.01) for m in (self.one, self.two)]


def test_each_optimizer_is_read_by_itself(tmp_path: Any) -> None:
    monitor, spy = GradientMonitor(), Spy()
    run = fit(Two(), spy, monitor, logger=CSVLogger(tmp_path, name=None, version=""), log_every_n_steps=4)
    assert global_norms(monitor) == pytest.approx(spy.norms, rel=1e-5)
    frame = monitor.history()
    assert frame.loc[frame["step"] % 2 == 0, "layer"].unique().tolist() == ["one.0", "one.2"]
    assert frame.loc[frame["step"] % 2 == 1, "layer"].unique().tolist() == ["two.0"]
    assert {"grad/norm_0", "grad/norm_1"} <= set((tmp_path / "metrics.csv").read_text().splitlines()[0].split(","))
    assert run.global_step == 64


def test_manual_optimization_of_lightnings_own_demo() -> None:
    monitor, spy = GradientMonitor(), Spy()
    run = trainer(spy, monitor, limit_train_batches=8, limit_val_batches=0)
    run.fit(ManualOptimBoringModel())
    assert global_norms(monitor) == pytest.approx(spy.norms, rel=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_a_loss_scaler_at_work_is_no_explosion(fused: bool) -> None:
    def run(**options: Any) -> GradientMonitor:
        torch.manual_seed(0)
        monitor = GradientMonitor()
        make = partial(torch.optim.Adam, lr=0.0, fused=fused)  # the weights stay, so that steps can be compared
        fit(Regression(mlp(4, 8, 2), make), monitor, **options)
        return monitor

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=2)
    scaled = run(plugins=[MixedPrecision("16-mixed", device="cpu", scaler=scaler)])
    norms, expected = global_norms(scaled), global_norms(run())
    finite = {step: norm for step, norm in norms.items() if math.isfinite(norm)}
    assert 5 < len(finite) < len(norms), "some steps overflow, and only these are not finite"
    assert finite == pytest.approx({step: expected[step] for step in finite}, rel=0.02), "the scale is divided out"
    assert scaled.alerts == []


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


class Reversed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.late, self.early = nn.Linear(3, 2), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.late(self.early(x))


def test_layers_are_in_forward_order_and_no_hook_is_left() -> None:
    monitor, module = GradientMonitor(), Regression(Reversed())
    fit(module, monitor)
    assert monitor.history()["layer"].unique().tolist() == ["model.early", "model.late"]
    assert not any(m._forward_pre_hooks for m in module.modules())


def test_a_compiled_module_keeps_names_and_order_and_is_compiled_once() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monitor = GradientMonitor()
    fit(torch.compile(Regression(Reversed()), backend="aot_eager"), monitor)  # type: ignore[arg-type]
    assert monitor.history()["layer"].unique().tolist() == ["model.early", "model.late"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("wrap", [torch.compile, nn.Sequential])
def test_layers_that_no_hook_sees_are_measured_all_the_same(wrap: Any) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.layer.weight, self.layer.bias)

    monitor, spy = GradientMonitor(), Spy()
    torch._dynamo.config.disable = True  # the wrapping is what matters here, not the compiler
    try:
        fit(Regression(wrap(Functional())), spy, monitor)
    finally:
        torch._dynamo.config.disable = False
    assert global_norms(monitor) == pytest.approx(spy.norms, rel=1e-5)
    assert monitor.history()["update_ratio"].notna().sum() == 21, "the first 20 steps, and every 25th"
    assert monitor.history()["layer"].unique().tolist() in (["model.layer"], ["model.0.layer"])


def test_parameters_unfrozen_in_mid_run_are_read() -> None:
    class Unfreeze(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 10:
                pl_module.model[0].requires_grad_(True)
            if batch_idx == 20:
                extra = nn.Linear(4, 2)
                pl_module.model.add_module("extra", extra)
                trainer.optimizers[0].add_param_group({"params": extra.parameters()})

    module, monitor, spy = Regression(mlp(4, 8, 2)), GradientMonitor(), Spy()
    module.model[0].requires_grad_(False)
    fit(module, Unfreeze(), spy, monitor, data=batches(targets=2, features=4, count=20))
    assert global_norms(monitor) == pytest.approx(spy.norms, rel=1e-5)
    assert len(monitor.history().query("step == 0")) == 1
    assert len(monitor.history().query("step == 15")) == 2


def test_all_gradients_none_is_one_warning() -> None:
    class Nothing(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            return None

    monitor = GradientMonitor()
    with pytest.warns(UserWarning, match="no parameter of optimizer 0 had a gradient at step 0") as caught:
        fit(Nothing(mlp(4, 2)), monitor)
    assert len([w for w in caught if "no parameter of optimizer" in str(w.message)]) == 1
    assert monitor.history().empty
    assert monitor.report()


def test_batches_that_the_user_skips_are_no_warning() -> None:
    class Skips(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
            return None if batch_idx % 3 == 1 else super().training_step(batch, batch_idx)

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no parameter of optimizer.*")
        fit(Skips(mlp(4, 2)), GradientMonitor())


def test_a_model_without_parameters_is_one_warning() -> None:
    class Empty(LightningModule):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            return None

        def configure_optimizers(self) -> None:
            return None

    with pytest.warns(UserWarning, match="the model has no trainable parameters"):
        fit(Empty(), GradientMonitor())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps must be a whole number of at least 1, got 0"),
        ({"every_n_steps": -1}, "every_n_steps"),
        ({"every_n_steps": 2.5}, "every_n_steps"),
        ({"rules": ["Explodng"]}, "unknown rule 'Explodng'; known are Exploding, NonFinite, Vanishing"),
        ({"rules": "Exploding"}, "rules must be a list"),
        ({"rules": [{"Exploding": {"factor": -5}}]}, "factor must be a finite number above 0, got -5"),
        ({"every_n_steps": True}, "every_n_steps must be a whole number of at least 1, got True"),
        ({"rules": [1]}, r"rules\[0\]: 1 is not a rule: give an object such as Exploding\(\), or its name"),
        ({"rules": ["Vanishing", Exploding]}, r"rules\[1\]: .* is not a rule"),
        ({"rules": 3}, r"rules must be a list of rules, such as \['Exploding'\], got 3"),
        ({"on_alert": "mail"}, "on_alert must be callable"),
        ({"on_alert": 3}, "on_alert must be callable with an alert, such as a function or a Notify, got 3"),
        ({"diagnose": "no"}, "diagnose must be True or False, got 'no'"),
        ({"diagnose": None}, "diagnose must be True or False, got None"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GradientMonitor(**arguments)


def test_rules_can_be_chosen_by_plain_values() -> None:
    monitor = GradientMonitor(rules=[{"Exploding": {"factor": 3.0}}, "NonFinite"])
    assert [type(rule).__name__ for rule in monitor.rules] == ["Exploding", "NonFinite"]
    assert isinstance(monitor.rules[0], Exploding)
    assert monitor.rules[0].factor == 3.0


def test_a_rule_of_ones_own_is_one_class() -> None:
    class Loud(Rule):
        kind = "exploding"
        active = False

        def judge(self, reading: Any) -> Alert | None:
            return Alert("exploding", "warning", reading.step, (), "", {}, "", "") if reading.norm > 0 else None

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None:
            pass

    monitor = GradientMonitor(rules=[Loud()])
    fit(Regression(mlp(4, 2)), monitor)
    assert len(monitor.alerts) == 32


@pytest.mark.parametrize(
    ("name", "alternative"),
    [("DeepSpeedStrategy", "FSDPStrategy"), ("XLAStrategy", "on GPUs"), ("XLAFSDPStrategy", "FSDPStrategy")],
)
def test_what_hides_its_gradients_is_refused_at_the_start(name: str, alternative: str) -> None:
    # A stand-in with the real one's name, by which strategies are recognised.
    strategy = type(name, (SingleDeviceStrategy,), {})
    with pytest.raises(MisconfigurationException, match=f"does not work under {name}.*{alternative}"):
        fit(Regression(mlp(4, 2)), GradientMonitor(), strategy=strategy(device=torch.device("cpu")))


def test_a_second_fit_continues() -> None:
    monitor, module = GradientMonitor(), Regression(mlp(4, 8, 2))
    run = fit(module, monitor)
    run.fit_loop.max_epochs = 2
    run.fit(module, batches())
    assert monitor.history()["step"].unique().tolist() == list(range(64))


def test_another_trainer_is_another_run() -> None:
    monitor = GradientMonitor()
    fit(Poisoned(mlp(4, 8, 2), factors={5: math.nan}), monitor)
    assert monitor.alerts
    fit(Regression(mlp(4, 2)), monitor, max_steps=5)
    assert monitor.alerts == []
    assert monitor.history()["step"].tolist() == [0, 1, 2, 3, 4]


def test_a_line_search_is_one_reading_a_step() -> None:
    monitor = GradientMonitor()
    fit(Regression(mlp(4, 2), lambda p: torch.optim.LBFGS(p, max_iter=5)), monitor, max_steps=4)
    assert monitor.history()["step"].tolist() == [0, 1, 2, 3]
    assert "dtype" not in monitor.report()


def test_several_monitors_keep_apart(tmp_path: Any) -> None:
    often, seldom = GradientMonitor(), GradientMonitor(every_n_steps=4)
    assert often.state_key != seldom.state_key
    run = fit(Regression(mlp(4, 2)), often, seldom)
    run.save_checkpoint(tmp_path / "both.ckpt")
    assert (len(often.history()), len(seldom.history())) == (32, 8)


def test_after_the_training_the_model_is_let_go() -> None:
    monitor = GradientMonitor()
    fit(Regression(mlp(4, 5000, 2), lambda p: torch.optim.SGD(p, lr=1e-3)), monitor)  # neither small nor picklable
    own = {name: value for name, value in vars(monitor).items() if name not in ("log", "log_dict")}  # Lightning's
    assert len(pickle.dumps(own)) < 20_000


@pytest.mark.slow
def test_two_processes_read_the_same(tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    module = Poisoned(mlp(4, 8, 2), factors={9: math.nan})
    fit(module, GradientMonitor(), Dump(tmp_path), strategy="ddp_spawn", devices=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["alerts"] == second["alerts"]
    assert [alert["step"] for alert in first["alerts"]] == [9]
    torch.testing.assert_close(first["history"], second["history"], equal_nan=True)
    assert "works in the processes that the strategy spawns" in capfd.readouterr().err


class Dump(Callback):
    """Writes what each process's monitor has found."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        [monitor] = [callback for callback in trainer.callbacks if isinstance(callback, GradientMonitor)]
        state = monitor.state_dict()
        torch.save(
            {"alerts": state["record"]["alerts"], "history": state["record"]["history"]["values"]},
            self.folder / f"rank{trainer.global_rank}.pt",
        )


def test_update_ratios_are_those_of_the_step() -> None:
    class Ratios(Callback):
        def __init__(self) -> None:
            self.ratios: list[float] = []

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            self.before = nn.utils.parameters_to_vector(pl_module.parameters()).clone()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            after = nn.utils.parameters_to_vector(pl_module.parameters())
            self.ratios.append(float((after - self.before).norm() / self.before.norm()))

    monitor, truth = GradientMonitor(), Ratios()
    fit(Regression(mlp(4, 2), lambda p: torch.optim.AdamW(p, lr=0.01)), truth, monitor, data=batches(15))
    np.testing.assert_allclose(monitor.history()["update_ratio"], truth.ratios, rtol=1e-3)


def test_sparse_gradients_with_a_row_twice_are_left_as_they_are() -> None:
    def trained(*callbacks: Any) -> Tensor:
        torch.manual_seed(0)
        embedding = nn.EmbeddingBag(5, 4, sparse=True)
        module = Regression(nn.Sequential(embedding, nn.Linear(4, 2)), partial(SGD, lr=0.1))
        rows = torch.randint(0, 5, (64, 6))
        fit(module, *callbacks, data=DataLoader(TensorDataset(rows, torch.randn(64, 2)), batch_size=8))
        return embedding.weight.detach()

    assert torch.equal(trained(), trained(GradientMonitor()))


@pytest.mark.parametrize("seed", range(3))
def test_long_first_steps_of_a_noisy_linear_model_are_no_explosion(seed: int) -> None:
    torch.manual_seed(seed)
    monitor = GradientMonitor()
    fit(BoringModel(), monitor, data=DataLoader(RandomDataset(32, 64)), max_steps=12)
    assert monitor.alerts == []
