from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from grad_callbacks import ClipNorm, Exploding, ReduceLR, Remedy, SkipStep
from grad_callbacks._utils.build import build
from grad_callbacks.treatment.remedies import REMEDIES


@pytest.mark.parametrize(
    ("spec", "cls", "attributes"),
    [
        ("SkipStep", SkipStep, {}),
        ("skip_step", SkipStep, {}),
        ({"ClipNorm": 2}, ClipNorm, {"max_norm": 2.0}),
        ({"ClipNorm": None}, ClipNorm, {"max_norm": None}),
        ({"ReduceLR": {"factor": 0.5, "floor": 0.01}}, ReduceLR, {"factor": 0.5, "floor": 0.01}),
        (OmegaConf.create({"ReduceLR": {"factor": 0.5}}), ReduceLR, {"factor": 0.5}),
        ("grad_callbacks.SkipStep", SkipStep, {}),
        ({"grad_callbacks.ClipNorm": 3.0}, ClipNorm, {"max_norm": 3.0}),
    ],
)
def test_plain_values_and_paths_make_objects(spec: object, cls: type, attributes: dict[str, object]) -> None:
    made = build(spec, REMEDIES, "remedy", Remedy)
    assert type(made) is cls
    assert {name: getattr(made, name) for name in attributes} == attributes


def test_an_object_is_taken_as_it_is() -> None:
    remedy = ClipNorm(1.0)
    assert build(remedy, REMEDIES, "remedy", Remedy) is remedy


class Quacks:
    """Has the methods of a remedy, but is none."""

    def engage(self, step: object, evidence: object) -> dict[str, object]:
        return {}

    def act(self, step: object) -> bool:
        return False


def test_only_a_class_of_the_right_kind_is_ever_called(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr("os.system", called.append)
    with pytest.raises(ValueError, match="is not a remedy"):
        build({"os.system": "rm"}, REMEDIES, "remedy", Remedy)
    assert not called


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ClipNrm", "unknown remedy 'ClipNrm'; known are ClipNorm, ClipValue, "),
        ({"ClipNorm": -1}, "max_norm must be a finite number above 0, got -1"),
        ({"ClipNorm": {"max": 1}}, "remedy ClipNorm: .*max"),
        ({"ClipNorm": 1, "SkipStep": None}, "a remedy is written as {name: arguments}"),
        (ClipNorm, "is not a remedy"),
        (1.0, "1.0 is not a remedy"),
        (Exploding(), "is not a remedy"),
        ("torch.nn.ReLU", "'torch.nn.ReLU' is not a remedy"),
        ("no_such_package.Remedy", "cannot import the remedy 'no_such_package.Remedy'"),
        ("grad_callbacks.NoSuch", "cannot import the remedy 'grad_callbacks.NoSuch'"),
        ("ClipNrm", "did you mean 'ClipNorm'"),
        ({"os.system": "exit 1"}, "'os.system' is not a remedy: it is no subclass of grad_callbacks.Remedy"),
        ({"subprocess.run": ["false"]}, "'subprocess.run' is not a remedy"),
        ({"grad_callbacks.Exploding": None}, "'grad_callbacks.Exploding' is not a remedy"),
        ({1: 2}, "1 is no name"),
        ({"ClipNorm": -1}, "remedy ClipNorm: max_norm"),
        ("grad_callbacks.Remedy", "remedy grad_callbacks.Remedy: .*abstract"),
        (Quacks(), "subclass grad_callbacks.Remedy"),
    ],
)
def test_what_cannot_be_built_is_named(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(spec, REMEDIES, "remedy", Remedy)
