"""How every benchmark shows what it measured: a table on the screen, the same numbers as JSON, the machine named."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Processor and cores, as README names them."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores"


def show(name: str, title: str, rows: Sequence[Mapping[str, Any]], note: str = "", directory: Path = RESULTS) -> None:
    """Print `rows` (dictionaries with the same keys) and write `directory`/<name>.json."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(escape(_text(value)) for value in row.values()))  # [brackets] are no markup
    console = Console(width=140)
    console.print(table)
    console.print(f"{machine()}{'; ' + note if note else ''}", style="dim")
    directory.mkdir(parents=True, exist_ok=True)
    record = {
        "name": name,
        "title": title,
        "machine": machine(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "note": note,
        "rows": list(rows),
    }
    (directory / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)
