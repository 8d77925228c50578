"""Samples answers from a script, without a model: for tests, dry runs and control-plane benchmarks."""
