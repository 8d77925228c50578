"""Reads and checks the configuration: settings classes, TOML file, `--set`, error messages. Loads without torch and Ray."""
