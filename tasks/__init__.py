"""Defines problems, prompts, environments, verifiers and rewards."""
