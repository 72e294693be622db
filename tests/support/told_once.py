"""An alarm about the rate that is raised once, whatever the run is like."""

from __future__ import annotations

from grad_callbacks import Alert, Reading, Rule


class Once(Rule):
    """Says once, at the 60th reading, that the rate is too high."""

    kind = "exploding"
    active = False
    count = 0

    def judge(self, reading: Reading) -> Alert | None:
        self.count += 1
        cause = "learning rate too high"
        return Alert("exploding", "critical", 59, (), "", {"moved": 99.0}, cause, "") if self.count == 60 else None

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = max(self.count, state["count"])
