"""Rules over our own code that no tool has: nothing is executed that was read from a file."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("contracts", "tasks", "actors", "memory_service", "learner", "cluster")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).glob("*.py"))]
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "cloudpickle.load",
    "cloudpickle.loads",
    "torch.load",
    "joblib.load",
    "marshal.loads",
    "yaml.load",
    "os.system",
}


def name_of(node: ast.expr) -> str:
    """Dotted name of what is called: `a.b.c`; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = name_of(node.value)
        return f"{inner}.{node.attr}" if inner else node.attr
    return ""


def violations(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name in FORBIDDEN_CALLS:
            yield f"line {node.lineno}: {name}"
        for flag in ("allow_pickle", "trust_remote_code", "shell"):
            value = keywords.get(flag)
            if value is not None and not (isinstance(value, ast.Constant) and value.value is False):
                yield f"line {node.lineno}: {flag} is not False"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_is_executed_that_was_read_from_a_file(path: Path) -> None:
    assert list(violations(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    ["import torch\ntorch.load('x')", "eval('1')", "np.load('x', allow_pickle=True)", "f(trust_remote_code=flag)"],
)
def test_the_rule_sees_what_it_is_for(source: str) -> None:
    assert len(list(violations(source))) == 1
