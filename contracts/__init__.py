"""What processes exchange: dataclasses, ports and errors."""
