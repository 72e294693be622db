"""Benchmarks: what measuring, clipping and logging cost, as ratios within one run on one thread."""
