"""Ablation: what each number and condition of the rules is worth, on runs that are drawn by lot."""
