"""The small tables that ship with scikit-learn."""

from __future__ import annotations

from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import float32, tensor

from experiments.data.arrays import Arrays

CLASSES = {"breast_cancer": datasets.load_breast_cancer, "wine": datasets.load_wine, "iris": datasets.load_iris}
TARGETS = {"diabetes": datasets.load_diabetes, "linnerud": datasets.load_linnerud}


class Tabular(Arrays):
    """One of scikit-learn's tables, inputs standardised, a fifth for validation.

    Args:
        name: ``breast_cancer``, ``wine`` or ``iris``, with classes; ``diabetes`` or ``linnerud``, with targets.
        batch_size: Rows per batch.
        target_scale: Spread of the targets, if they are numbers. They are not centred if it is ``None``.
        split_seed: Which rows are for validation.
    """

    def __init__(self, name: str, batch_size: int = 32, target_scale: float | None = 1.0, split_seed: int = 0) -> None:
        if name not in CLASSES | TARGETS:
            raise ValueError(f"name must be one of {', '.join(CLASSES | TARGETS)}, got {name!r}")
        table, answers = (CLASSES | TARGETS)[name](return_X_y=True)
        train, val, train_answers, val_answers = train_test_split(
            table, answers, test_size=0.2, stratify=answers if name in CLASSES else None, random_state=split_seed
        )
        scaler = StandardScaler().fit(train)
        inputs = [tensor(scaler.transform(part), dtype=float32) for part in (train, val)]
        if name in CLASSES:
            outputs = [tensor(part) for part in (train_answers, val_answers)]
            self.out_features = int(answers.max()) + 1
        else:
            outputs = [tensor(part, dtype=float32).reshape(len(part), -1) for part in (train_answers, val_answers)]
            if target_scale is not None:
                mean, spread = outputs[0].mean(dim=0), outputs[0].std(dim=0)
                outputs = [target_scale * (part - mean) / spread for part in outputs]
            self.out_features = outputs[0].shape[1]
        self.in_features = inputs[0].shape[1]
        super().__init__((inputs[0], outputs[0]), (inputs[1], outputs[1]), batch_size)
