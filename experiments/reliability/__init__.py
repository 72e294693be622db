"""What a journal survives: ``python -m experiments.reliability`` tries every fault and writes docs/reliability.md."""
