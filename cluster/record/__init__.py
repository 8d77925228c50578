"""Keeps a run on disk: log, history, checkpoints, adapters, ledger, metrics, incidents."""
