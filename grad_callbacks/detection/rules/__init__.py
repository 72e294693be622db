"""Rules: readings in, alerts out.

Each rule has a file for the rule itself (``exploding``, ``outlier``, ``attention``, ``vanishing``, ``nonfinite``) and,
where that would be too long, ``..._conditions`` (pure functions), ``..._message`` (what an alert says) and
``..._thresholds``;
``exploding_history`` holds what that rule remembers of a run. ``first_step`` judges the first reading alone. ``base``
has what a rule is, ``baseline`` the usual norm of a run, ``episode`` the count of alarms that belong together.
"""

from __future__ import annotations

from grad_callbacks._utils.build import build
from grad_callbacks.detection.rules.attention import SaturatedAttention
from grad_callbacks.detection.rules.base import Rule
from grad_callbacks.detection.rules.exploding import Exploding
from grad_callbacks.detection.rules.nonfinite import NonFinite
from grad_callbacks.detection.rules.outlier import Outlier
from grad_callbacks.detection.rules.vanishing import Vanishing

# In the order of judgement: an explosion that leaves nothing finite is the first cause, and its alert comes first.
RULES: dict[str, type[Rule]] = {
    "Exploding": Exploding,
    "Outlier": Outlier,
    "SaturatedAttention": SaturatedAttention,
    "NonFinite": NonFinite,
    "Vanishing": Vanishing,
}


def rule_of(spec: object) -> Rule:
    """Return the rule that an object, a name or a plain value describes.

    Raises:
        ValueError: If it describes none, or one that has no kind.
    """
    rule = build(spec, RULES, "rule", Rule)
    if not isinstance(rule.kind, str) or not rule.kind:
        raise ValueError(f"{type(rule).__name__} has no kind: set its class attribute `kind` to a word")
    return rule


__all__ = ["RULES", "Exploding", "NonFinite", "Outlier", "Rule", "SaturatedAttention", "Vanishing", "rule_of"]
