"""Observes a run: console, TensorBoard, notifications."""
