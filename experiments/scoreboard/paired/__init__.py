"""Paired: the guard against each single remedy, on the same runs, at several rates, seeds and kinds of arithmetic."""
