"""What processes exchange: dataclasses with their Arrow schemas, ports, errors, and bounded readers of files."""
