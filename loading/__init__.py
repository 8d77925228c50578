"""Loads what the configuration names: users' code, models, the hub; errors on the way become one sentence. Without torch and Ray."""
