"""Who treats an optimizer: a remedy runner with its own copy of the prescription, or none."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn

from grad_callbacks.engine.no_treatment import NoTreatment
from grad_callbacks.engine.remedy_runner import TREATED, RemedyRunner
from grad_callbacks.engine.rule_runner import RuleRunner
from grad_callbacks.measurement import Gauge
from grad_callbacks.reporting.record import Record
from grad_callbacks.treatment.prescription.prescription import Prescription
from grad_callbacks.treatment.prescription.presets import Plan
from grad_callbacks.treatment.step.learning_rate import LearningRate
from grad_callbacks.treatment.step.snapshot_store import memory_limit
from grad_callbacks.treatment.trial import Trial
from grad_callbacks.treatment.trial.contest import Contest


def prescription_for(
    optimizer: torch.optim.Optimizer, prescription: Prescription | Plan | str | None, kinds: Collection[str]
) -> Prescription | None:
    """Return the optimizer's own copy of a prescription, or of a plan for one; None for none.

    Args:
        optimizer: Is treated.
        prescription: The prescription, or the plan.
        kinds: The kinds of alert that the rules raise.

    Raises:
        ValueError: If it is none of these, answers a kind that no rule raises, or another engine treats the optimizer
            already.
    """
    plan = Prescription(prescription) if isinstance(prescription, Mapping | str) else prescription
    if plan is not None and not isinstance(plan, Prescription):
        raise ValueError(f"prescription must be a Prescription, a plan for one, or None, got {prescription!r}")
    if plan is not None and optimizer in TREATED:
        raise ValueError(
            "another engine with a prescription treats this optimizer already, and they would lower its learning "
            "rate twice: keep one of them, or use a GradientMonitor for the other"
        )
    own = copy.deepcopy(plan)
    if own is not None:
        own.prepare_for(kinds)
    return own


def treatment_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    prescription: Prescription | None,
    gauge: Gauge,
    learning_rate: LearningRate,
    rule_runner: RuleRunner,
    trial: Trial | None,
    record: Record,
    index: int,
    memory: float | None,
    averages: Sequence[object],
) -> RemedyRunner | NoTreatment:
    """Return what answers the alerts of one optimizer (see :class:`~grad_callbacks.Engine` for the arguments)."""
    if prescription is None:
        memory_limit(memory)
        return NoTreatment()
    known = model, optimizer, prescription, gauge
    contest = None if trial is None else Contest(*known, trial, record.trials, index)
    return RemedyRunner(*known, learning_rate, rule_runner, contest, memory, averages)
