"""Finds failures of learning in a run's own metrics: monitors, windows, what follows."""
