"""Schedules of the learning rate. Each is made with the optimizer and the number of all its steps."""
