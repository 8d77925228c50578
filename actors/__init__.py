"""Samples rollouts: the rollout worker, its engines, and the proof that an engine serves the published adapter."""
