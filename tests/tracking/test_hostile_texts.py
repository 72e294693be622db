"""Texts of a run or a store that look like HTML: pages show them, and never run them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from grad_callbacks.tracking.comparison.compare import COLUMNS
from grad_callbacks.tracking.comparison.report import comparison_page
from tests.support.browser import needs_browser, opened
from tests.tracking.run_page.test_page import ALERT, CLIPPED, history, page

MARK = 'data-probe="seen"'  # on the page's root, if the probe has run
PROBE = "<img src=x onerror='document.documentElement.dataset.probe=\"seen\"'>"
PROBES = [PROBE, f"</script>{PROBE}", f'">{PROBE}', f"</title>{PROBE}", f"/*DATA*/{PROBE}", f"<!--<script>{PROBE}"]


@needs_browser
def test_the_probe_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "bare.html").write_text(f"<html><body>{PROBE}</body></html>")
    assert MARK in opened(tmp_path / "bare.html", tmp_path / "profile")


@needs_browser
def test_no_text_of_a_run_is_run_by_its_page(tmp_path: Path) -> None:
    probe = "".join(PROBES)
    alert = replace(
        ALERT,
        kind=probe,
        message=probe,
        cause=probe,
        advice=probe,
        layers=(probe,),
        evidence={probe: 1.0},
    )
    html = page(
        name=probe,
        verdict=probe,
        outcome=probe,
        summary=[(probe, probe)],
        history=history(layers=(probe, "b")),
        alerts=[alert, ALERT],
        interventions=[replace(CLIPPED, remedy=probe, alert_kind=probe, detail={probe: probe})],
        environment={probe: probe},
    )
    (tmp_path / "run.html").write_text(html)
    shown = opened(tmp_path / "run.html", tmp_path / "profile")
    assert 'data-drawn="yes"' in shown, "the page was drawn, with these texts in it"
    assert MARK not in shown


@needs_browser
def test_no_text_of_a_store_is_run_by_a_comparison(tmp_path: Path) -> None:
    probe = "".join(PROBES)
    texts = dict.fromkeys(COLUMNS, probe)
    rows = [texts | {"seed": f"{probe}{seed}", "guard": guard} for seed in range(2) for guard in ("none", probe)]
    table = pd.DataFrame(rows).assign(accuracy=0.5, difference=0.1)
    table["is_baseline"] = table["guard"] == "none"
    table.attrs = {"metric": probe, "less_is_better": False, "experiment": probe}
    (tmp_path / "comparison.html").write_text(comparison_page(table))
    shown = opened(tmp_path / "comparison.html", tmp_path / "profile")
    assert 'data-drawn="yes"' in shown
    assert MARK not in shown
