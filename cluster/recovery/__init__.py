"""Restarts what failed: restart budgets, restartable handles, replayed updates, the supervisor."""
