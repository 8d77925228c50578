"""Starts a run: checks data and model, places processes on nodes, starts Ray and the actors."""
