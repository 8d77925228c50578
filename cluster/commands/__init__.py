"""The commands of `memr`: parses the command line, prints tables, reports, exports, evaluates."""
