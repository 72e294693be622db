"""The document: every number is one of the runs', every link has its place."""

from __future__ import annotations

import re

from experiments.syllabus.claims import DEEP, DEPTHS, Setting, deep_setting
from experiments.syllabus.document import document, refusals, text_claims
from experiments.syllabus.figure import picture
from experiments.syllabus.judging import Many
from tests.experiments.syllabus.made import many

LAYER_NORM, CLIPPED = Setting("sigmoid", ("layer_norm",)), Setting("sigmoid", ("clip_value",))


def results() -> dict[Setting, Many]:
    found = {
        Setting("sigmoid"): many(Setting("sigmoid"), 0.1, 0.11, 0.12),
        Setting("sigmoid", guard="full"): many(Setting("sigmoid", guard="full"), 0.97),
        Setting("sigmoid", ("relu",)): many(Setting("sigmoid", ("relu",)), 0.94, 0.95, 0.96, error_ratio=1.5),
        LAYER_NORM: many(LAYER_NORM, 0.123),
        CLIPPED: many(CLIPPED, 0.134),
        Setting("sigmoid", biases=False): many(Setting("sigmoid", biases=False), 0.087),
        Setting("large_weights"): many(Setting("large_weights"), 0.1, error_ratio=4e4, nonfinite_step=2),
    }
    for depth in DEPTHS:
        one = deep_setting(DEEP[0], depth)
        found[one] = many(one, 0.5, error_ratio=0.1**depth)
    return found


def test_claims_that_do_not_hold_are_listed_with_their_numbers() -> None:
    told = document(results())
    false = told.split("## Claims of the text that did not hold")[1].split("\n## ")[0]
    assert "| [sigmoid](#sigmoid) | clipping by value in [-1, 1] | 0.11 (0.10–0.12) | 0.13 |" in false
    assert "ReLU" not in false, "it held"
    assert "layer normalisation" not in false, "the text does not claim it of vanishing"
    assert "Of the text's 4 claims: 3 held, 1 did not hold." in told
    assert CLIPPED in text_claims(results())
    assert LAYER_NORM not in text_claims(results())


def test_the_tables_have_the_runs_numbers() -> None:
    told = document(results(), "syllabus.png")
    assert "| **as it is** | 0.1 (0.11) | 1.0e-5 | 1.0e-4 | 0.11 (0.10–0.12) | 0.09 | vanishing | held |" in told
    assert "| layer normalisation | 0.1 (0.11) | 1.0e-5 | 1.0e-4 | 0.12 | – | vanishing | did not hold |" in told
    assert "| ✦ ReLU with He's weights | 0.1 (0.11) | 1.50 |".replace("1.50", "1.5") in told
    assert "| sigmoid | 60 | 0.1 (0.11) | 1.0e-60 | 0.50 |" in told
    assert "not finite in 1 of 1 runs, from step 2" in told
    assert "ATEN_CPU_CAPABILITY X" in told
    assert "](syllabus.png)" in told


def test_every_link_of_the_document_leads_somewhere() -> None:
    told = document(results())
    places = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)$", told, re.M)}
    links = set(re.findall(r"\]\(#([^)]*)\)", told))
    assert links
    assert links <= places


def test_refusals_are_sentences_with_their_reason() -> None:
    told = refusals().splitlines()
    assert any(line.startswith("- recurrent nets: batch normalisation, layer normalisation") for line in told)
    assert all(line.endswith(".") for line in told)


def test_the_picture_has_three_panels_and_the_theorys_lines() -> None:
    profiles, _, depths = picture(results()).axes
    assert [line.get_label() for line in profiles.lines] == ["sigmoid", "sigmoid + layer norm", "sigmoid + relu"]
    assert [float(y) for y in depths.lines[0].get_ydata()] == [0.1**depth for depth in DEPTHS]
    assert len(depths.lines) == 2
