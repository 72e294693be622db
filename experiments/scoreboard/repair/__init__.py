"""The repair scoreboard: what each remedy makes of the failing runs, and what harm it does to the healthy ones."""
