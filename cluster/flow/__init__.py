"""Moves groups through a run: admission, dispatch, scoring, buffer, training, publication, evaluation."""
