"""What a callback shows in a notebook and at a prompt."""

from __future__ import annotations

import math
import re
import sys
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from grad_callbacks import Alert, GradientGuard, GradientMonitor, Intervention
from grad_callbacks.callbacks._norm_chart import MAX_MARKS, MAX_POINTS, norm_chart
from tests.support.helpers import Poisoned, Regression, fit, mlp


def trained(factor: float = 1.0, **options: Any) -> GradientGuard:
    guard = GradientGuard(**options)
    fit(Poisoned(mlp(4, 8, 2), factors={15: factor}), guard)
    return guard


def alert(**changes: Any) -> Alert:
    values = {"kind": "exploding", "severity": "critical", "step": 15, "layers": ("a",), "message": "seen"}
    return Alert(**{**values, "evidence": {}, "cause": "", "advice": "", **changes})


def test_repr_has_settings_verdict_and_readings() -> None:
    assert repr(GradientMonitor(every_n_steps=5, rules=["Exploding"])) == (
        "<GradientMonitor: no step was read yet; every 5 steps, rules Exploding>"
    )
    assert "remedies ClipNorm>" in repr(GradientGuard({"exploding": ["ClipNorm"]}))
    assert repr(trained()).startswith("<GradientGuard: healthy: no alert in 32 readings of 2 layers")
    assert repr(trained(math.nan)).startswith("<GradientGuard: nonfinite gradients, ")


def test_the_fragment_has_verdict_summary_and_a_chart_and_loads_nothing() -> None:
    html = trained(math.nan)._repr_html_()
    root = ElementTree.fromstring(html)  # well-formed
    allowed = {"div", "b", "ul", "li", "svg", "path", "polyline", "text", "title"}
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= allowed
    assert not re.search(r"(href|src|url\(|@import|on\w+=)", html)
    text = " ".join(root.itertext())
    assert "nonfinite gradients, " in text
    assert "done: SkipStep" in text
    assert "step 15: nonfinite gradients (critical)" in text


def test_before_the_training_and_in_a_healthy_run_there_is_a_fragment_too() -> None:
    assert "<svg" not in GradientMonitor()._repr_html_()
    assert "not measured" in GradientMonitor()._repr_html_()
    assert "<svg" in trained()._repr_html_()


def test_texts_of_the_run_are_escaped() -> None:
    guard = trained()
    guard.record.add(alert(kind="<b>x</b>", message="<img src=x>", advice='<i>do</i> & "more"'))
    guard.record.interventions.append(Intervention(15, "<u>r</u>", "<b>x</b>", {"<s>": "</title><p>"}))
    html = guard._repr_html_()
    assert not {"<img", "<i>", "<u>", "<s>", "<p>", "<b>x"} & set(re.findall(r"<\w+>?(?:x(?=<))?", html))
    assert "&lt;i&gt;do&lt;/i&gt; &amp; " in html
    ElementTree.fromstring(html)


def test_a_colour_that_is_none_does_not_get_into_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    from grad_callbacks import events

    monkeypatch.setitem(events._KINDS, "odd", events.AlertKind("odd", colour='red" onload="x'))
    assert "onload" not in norm_chart([(0, 1.0), (1, 2.0)], [alert(kind="odd")], [])


@pytest.mark.parametrize("norms", [[], [math.nan], [0.0, math.inf]])
def test_without_a_norm_there_is_no_chart(norms: list[float]) -> None:
    assert norm_chart(list(enumerate(norms)), [], []) == ""


def test_the_chart_of_a_long_run_is_small_and_keeps_peaks_and_gaps() -> None:
    points = [(float(step), 1.0) for step in range(20_000)]
    points[777] = (777.0, 1e6)
    points[5000] = (5000.0, math.nan)
    many = [alert(step=step) for step in range(5000)]
    svg = norm_chart(points, many, [])
    assert svg.count("<title>") == MAX_MARKS
    lines = re.findall(r'polyline points="([^"]*)"', svg)
    assert len(lines) == 2
    drawn = [tuple(map(float, point.split(","))) for line in lines for point in line.split()]
    assert len(drawn) <= MAX_POINTS
    assert min(y for _, y in drawn) == 10.0, "the peak is at the top"
    assert len(svg) < 50_000


def test_a_single_reading_is_drawn() -> None:
    assert "<polyline" in norm_chart([(3.0, 1.0)], [alert(step=3)], [])


def test_plot_is_a_figure_with_norm_rate_and_loss() -> None:
    figure = trained(math.nan).plot()
    assert [axes.get_title(loc="left").split(",")[0] for axes in figure.axes] == [
        "Gradient norm",
        "Learning rate in effect",
        "Training loss",
    ]


def test_a_notebook_shows_the_figure_that_plot_returns() -> None:
    pytest.importorskip("IPython")
    from IPython.core.formatters import DisplayFormatter

    shown, _ = DisplayFormatter().format(trained(math.nan).plot())
    assert shown["image/png"].startswith(b"\x89PNG")


def test_plot_before_the_training_says_so() -> None:
    with pytest.raises(ValueError, match="nothing to plot yet: no step was measured"):
        GradientMonitor().plot()


@pytest.mark.parametrize("package", ["matplotlib", "pandas"])
def test_plot_without_its_packages_says_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = trained()
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf"plot\(\) needs {package}, .*pip install 'grad-callbacks\[plots\]'"
    ):
        guard.plot()


def test_show_prints_the_report_where_there_is_no_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    guard = trained()
    capsys.readouterr()
    guard.show()
    assert capsys.readouterr().out == f"{guard.report()}\n"


def test_show_displays_the_fragment_in_a_notebook(tmp_path: Any) -> None:
    client = pytest.importorskip("jupyter_client")
    pytest.importorskip("ipykernel")
    manager, kernel = client.manager.start_new_kernel(kernel_name="python3")
    try:
        shown: list[dict[str, Any]] = []
        kernel.execute_interactive(
            "from grad_callbacks import GradientMonitor; GradientMonitor().show()",
            output_hook=lambda message: shown.append(message),
            timeout=120,
        )
        [data] = [message["content"]["data"] for message in shown if message["msg_type"] == "display_data"]
        assert data["text/html"].startswith("<div")
        assert data["text/plain"].startswith("<GradientMonitor: no step was read yet")
    finally:
        manager.shutdown_kernel(now=True)


def test_a_monitor_that_a_user_has_subclassed_keeps_its_name() -> None:
    class Mine(GradientMonitor):
        pass

    mine = Mine()
    fit(Regression(mlp(4, 8, 2)), mine)
    assert repr(mine).startswith("<Mine: healthy")
