"""The scoreboard: detectors, and later remedies, on the corpus of labelled runs."""
