"""docs/tree.md: every source file with the first sentence of its docstring. `python -m tests.tree` writes it anew."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tree.md"
PACKAGES = ("contracts", "storage", "loading", "tasks", "actors", "memory_service", "learner", "cluster")
FOLDERS = (*PACKAGES, "benchmarks")
INTRODUCTION = """# The tree

Every source file with the first sentence of its docstring. Written by `python -m tests.tree`, checked by
`tests/unit/test_house_rules.py`.

"""


def source_files(*folders: str) -> list[Path]:
    """All Python files below the folders, sorted, packages' own `__init__.py` left out."""
    return [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py")) if p.name != "__init__.py"]


def caption(path: Path) -> str:
    """The first sentence of a module's docstring, without its full stop; empty where there is none."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[^.])\.(?:\s|$)", paragraph)[0]


def page() -> str:
    return (
        INTRODUCTION + "```\n" + "\n".join(line for folder in FOLDERS for line in _lines(ROOT / folder, 0)) + "\n```\n"
    )


def _lines(folder: Path, depth: int) -> Iterator[str]:
    indent = "  " * depth
    yield f"{indent}{folder.name}/  {caption(folder / '__init__.py')}".rstrip()
    files = [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    width = max((len(path.name) for path in files), default=0)
    for path in files:
        yield f"{indent}  {path.name:{width}}  {caption(path)}"
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield from _lines(inner, depth + 1)


if __name__ == "__main__":
    PAGE.write_text(page())
