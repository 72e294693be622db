"""Compute in float32 what does not fit into 16 bits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from grad_callbacks.detection.diagnosis.first_nonfinite import first_nonfinite
from grad_callbacks.detection.rules.leeway import LEEWAY
from grad_callbacks.events import Evidence
from grad_callbacks.measurement.batch import tensors_in
from grad_callbacks.measurement.sharding import is_alone
from grad_callbacks.treatment.remedies._support.forward_hooks import InForward
from grad_callbacks.treatment.remedies._support.replayed_loss import can_be_replayed, replayed_loss
from grad_callbacks.treatment.remedies._support.skip_next import SkipNext
from grad_callbacks.treatment.remedies.base import Remedy
from grad_callbacks.treatment.remedies.mask_undefined import LIMITS as MASKS
from grad_callbacks.treatment.step.optimizer_step import OptimizerStep
from grad_callbacks.treatment.step.run_state import RunState

WHOLE = ""  # the name of the whole model


class FullPrecision(InForward, SkipNext, Remedy):
    """Runs modules in float32 whose numbers grow beyond 65504, the largest that float16 holds.

    The batch is run again to find the first operation that overflows. Its module leaves ``torch.autocast`` from then
    on, in training and in evaluation: inputs are cast to float32, and so the outputs stay. That is repeated until all
    is finite; after 8 rounds, where an operation belongs to no module, and where several processes train together,
    every module runs in float32. If the loss is not finite even so, nothing is switched on. The current step is
    skipped, and the loss scaler gets the scale back that it had before the overflows, so that small gradients are not
    lost.

    It does not help models whose weights are 16-bit numbers themselves (``precision="16-true"``); compiled and sharded
    models are left alone. Needs a ``training_step`` that can be run again. The hooks are removed after the training.
    Reference: Micikevicius et al. 2018, "Mixed Precision Training", sec. 3.3: reductions and what exceeds the range of
    float16 are kept in float32.

    Attributes:
        modules: Names of the modules in float32; ``""`` stands for all of them.
    """

    acts_at_start = True
    needs_snapshots = True

    def __init__(self) -> None:
        super().__init__()
        self.modules: list[str] = []

    def engage(self, step: OptimizerStep, evidence: Evidence) -> dict[str, Any] | None:
        """Keep modules that overflow in float32, and skip the current step; None if the loss is not finite then."""
        run_state = step.run_state
        is_possible = run_state is not None and step.layers.sharding is None and can_be_replayed(run_state)
        if run_state is None or not is_possible or WHOLE in self.modules:
            return None
        before = list(self.modules)
        if not self._widen(run_state) or self.modules == before or not math.isfinite(replayed_loss(run_state)):
            self._keep_in_float32(before, run_state.model)
            return None
        if step.snapshots is not None:
            step.snapshots.restore_scale()
        self.skip_next_step()
        return {"modules": ", ".join(name or "the whole model" for name in self.modules)}

    def _widen(self, run_state: RunState) -> bool:
        """Add modules until nothing overflows; False if something else than 16 bits is the cause."""
        assert run_state.batch.replay is not None
        for _ in range(MASKS.most_masked if is_alone() else 0):
            origin = first_nonfinite(run_state.model, run_state.batch.replay)
            if origin.source != "16-bit overflow":
                return not origin.source
            if not origin.module or origin.module in self.modules:
                break
            self._keep_in_float32([*self.modules, origin.module], run_state.model)
        self._keep_in_float32([WHOLE], run_state.model)
        return True

    def _keep_in_float32(self, modules: list[str], model: nn.Module) -> None:
        self.modules = modules
        self.attach(model)

    def act(self, step: OptimizerStep) -> bool | Tensor:
        """Skip the step that raised the alert; return whether modules are kept in float32."""
        return self._skips(step) or bool(self.modules)

    def _hook_into(self, model: nn.Module) -> Iterator[RemovableHandle]:
        named = [model.get_submodule(name) for name in self.modules if name != WHOLE]
        for module in model.modules() if WHOLE in self.modules else named:
            without = _WithoutAutocast()
            yield module.register_forward_pre_hook(without.enter, with_kwargs=True)
            yield module.register_forward_hook(without.leave, always_call=True)

    def idle_for(self, readings: int) -> int:
        """Return any number while it is off."""
        return LEEWAY.any if not self.modules and not self._skip_next else 0

    def state_dict(self) -> dict[str, Any]:
        """Return the modules' names."""
        return {"modules": list(self.modules), "skip_next": self._skip_next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`, once :meth:`attach` has put the hooks in place."""
        self.modules, self._skip_next = list(state["modules"]), state["skip_next"]


class _WithoutAutocast:
    """The hooks: they leave autocast before a module's forward and go back to it afterwards, also after an error."""

    def __init__(self) -> None:
        self._contexts: list[torch.autocast] = []  # several if a module calls itself

    def enter(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        tensors = [*tensors_in([args, kwargs]), *module.parameters()]
        context = torch.autocast(tensors[0].device.type if tensors else "cpu", enabled=False)
        context.__enter__()  # type: ignore[no-untyped-call]
        self._contexts.append(context)
        wide: tuple[Any, ...] = _wide(args)
        return wide, _wide(kwargs)

    def leave(self, module: nn.Module, inputs: object, outputs: object) -> None:
        if self._contexts:
            self._contexts.pop().__exit__(None, None, None)


def _wide(nested: Any) -> Any:
    """Cast 16-bit floating-point tensors to float32."""
    if isinstance(nested, Tensor):
        return nested.float() if nested.dtype in (torch.float16, torch.bfloat16) else nested
    if type(nested) in (tuple, list):
        return type(nested)(map(_wide, nested))
    if type(nested) is dict:
        return {name: _wide(value) for name, value in nested.items()}
    return nested
