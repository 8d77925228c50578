"""Rules over our own code that no tool has: nothing read from a file is executed, nothing waits without a limit, and
what is printed is printed as it is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.record.events.registry import EVENT_CLASSES
from cluster.record.events.training import AlarmRaised
from tests.tree import FOLDERS, PACKAGES, PAGE, ROOT, caption, page, source_files

FILES = source_files(*PACKAGES)


def name_in_tree(path: Path) -> str:
    return str(path.relative_to(ROOT))


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


@pytest.mark.parametrize("path", FILES, ids=name_in_tree)
def test_nothing_is_executed_that_was_read_from_a_file(path: Path) -> None:
    assert list(violations(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    ["import torch\ntorch.load('x')", "eval('1')", "np.load('x', allow_pickle=True)", "f(trust_remote_code=flag)"],
)
def test_the_rule_sees_what_it_is_for(source: str) -> None:
    assert len(list(violations(source))) == 1


UNLIMITED_WITHOUT_TIMEOUT = {"ray.get", "ray.wait", "asyncio.wait", "subprocess.run", "subprocess.check_output"}
"""Calls that take a keyword `timeout` and wait forever without one."""
WAITING_METHODS = {"wait", "join", "communicate", "acquire", "result"}
"""Of threads, processes, queues, events, locks, futures: without an argument they wait forever."""


def limited(call: ast.Call) -> bool:
    return any(keyword.arg in ("timeout", "timeout_s") for keyword in call.keywords)


def under_timeout(tree: ast.AST) -> set[ast.AST]:
    """Everything inside `async with asyncio.timeout(..)`."""
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncWith) and any(
            isinstance(item.context_expr, ast.Call) and name_of(item.context_expr.func) == "asyncio.timeout"
            for item in node.items
        ):
            inside.update(ast.walk(node))
    return inside


def endless_waits(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    safe = under_timeout(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or limited(node) or node in safe:
            continue
        name = name_of(node.func)
        method = name.rpartition(".")[2]
        receiver = name.rpartition(".")[0].rpartition(".")[2]
        if name in UNLIMITED_WITHOUT_TIMEOUT or method == "urlopen":
            yield f"line {node.lineno}: {name} without timeout"
        elif node.args or not receiver:
            continue
        elif (method in WAITING_METHODS and not (receiver.endswith("changed") or is_done(node, tree))) or (
            method == "get" and "queue" in receiver.lower()
        ):
            yield f"line {node.lineno}: {name}() waits without a limit"


def is_done(call: ast.Call, tree: ast.AST) -> bool:
    """`.result()` of an asyncio task never waits; of a concurrent future it does, so threads' futures are not used here."""
    uses_threads = any(isinstance(n, ast.ImportFrom) and n.module == "concurrent.futures" for n in ast.walk(tree))
    return isinstance(call.func, ast.Attribute) and call.func.attr == "result" and not uses_threads


@pytest.mark.parametrize("path", FILES, ids=name_in_tree)
def test_nothing_waits_without_a_limit(path: Path) -> None:
    """`Signal.wait` (named `..changed`) has a limit of its own."""
    assert list(endless_waits(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "ray.get(x)",
        "thread.join()",
        "process.wait()",
        "self._queue.get()",
        "await asyncio.wait(tasks)",
        "subprocess.run(['x'])",
        "urllib.request.urlopen(u)",
        "from concurrent.futures import Future\nf.result()",
    ],
)
def test_the_rule_of_waits_sees_what_it_is_for(source: str) -> None:
    assert len(list(endless_waits(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "ray.get(x, timeout=1)",
        "', '.join(names)",
        "await self._changed.wait()",
        "async def f():\n async with asyncio.timeout(1):\n  await event.wait()",
        "settings.get('a')",
    ],
)
def test_the_rule_of_waits_lets_pass_what_is_limited(source: str) -> None:
    assert list(endless_waits(source)) == []


@pytest.mark.parametrize("path", FILES, ids=name_in_tree)
def test_only_the_terminal_makes_a_console(path: Path) -> None:
    """Elsewhere [brackets] in a path, a setting or a model's answer would be taken for markup, and vanish or raise."""
    made = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert path.name == "terminal.py" or "Console" not in {name_of(node.func) for node in made}


@pytest.mark.parametrize("path", FILES, ids=name_in_tree)
def test_only_durable_syncs(path: Path) -> None:
    """One order of data, name and folder for every writer: storage/durable.py has it."""
    called = {name_of(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    assert path.name == "durable.py" or not called & {"os.fsync", "os.fdatasync", "fsync"}


def test_the_rules_see_every_file() -> None:
    """A moved folder must not slip out of these rules: what is imported from one of our packages is checked."""
    imported = {
        node.module
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES
    }
    checked = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES}
    assert len(FILES) > 200
    assert {module for module in imported if not (ROOT / Path(*module.split("."))).is_dir()} <= checked


def test_the_page_of_the_tree_is_the_tree() -> None:
    assert PAGE.read_text() == page(), "write it anew: python -m tests.tree"


def test_every_file_and_folder_says_what_it_is() -> None:
    folders = [path for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")]
    assert [name_in_tree(path) for path in [*source_files(*FOLDERS), *folders] if not caption(path)] == []


def test_the_readme_names_every_folder() -> None:
    tree = (ROOT / "README.md").read_text().partition("## The tree")[2]
    folders = {path.parent.name for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")}
    assert {name for name in folders if f"{name}/" not in tree} == set()


MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 40


def long_functions(path: Path) -> list[str]:
    functions = [
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    return [f"{name}: {lines} lines" for name, lines in sizes.items() if lines > MAX_FUNCTION_LINES]


@pytest.mark.parametrize("path", source_files(*FOLDERS), ids=name_in_tree)
def test_a_file_is_one_idea_and_a_function_one_step(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES
    assert long_functions(path) == []


MODULES = [*source_files(*FOLDERS), *(ROOT / "tests").rglob("*.py")]


@pytest.mark.parametrize("path", FILES, ids=name_in_tree)
def test_a_module_names_only_files_that_are_there(path: Path) -> None:
    """A docstring that points to a file outlives its move otherwise."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    named = {Path(name).name for name in re.findall(r"[\w/]+\.py\b", text)}
    users = {name for name in named if name == "FILE.py" or name.startswith("my_")}
    assert named - users - {file.name for file in MODULES} == set()


OTHER_MEANINGS = {
    ("cluster/config/notify.py", "restart"): "a name of notify.events",
    ("cluster/flow/quarantine.py", "quarantined"): "a reason in the ledger",
    ("cluster/flow/worker_state.py", "draining"): "a state of a worker",
    ("cluster/record/metrics.py", "memory_late"): "a number of metrics.jsonl",
    ("cluster/watch/console.py", "left"): "where a title stands",
}
"""Strings that are written like the name of an event and are none."""


def event_names_in(source: str) -> set[str]:
    """String literals that are the name of an event, or the beginning of an alarm's name."""
    literals = {
        n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }
    return {text for text in literals if text in EVENT_CLASSES or text.startswith(AlarmRaised.written_as)}


def test_no_event_is_known_by_a_string_outside_its_class() -> None:
    files = [path for path in source_files("cluster") if path.parent.name != "events"]
    found = {(name_in_tree(path), name) for path in files for name in event_names_in(path.read_text())}
    assert len(files) > 100
    assert found == OTHER_MEANINGS.keys()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("recorder.event('joined', worker=w)", {"joined"}),
        ("line['event'] == 'stopped' or kind in ('run_died', 'x')", {"stopped", "run_died"}),
        ("name = f'alarm_{alarm}'", {"alarm_"}),
        ("if name == 'alarm_entropy': pass", {"alarm_entropy"}),
        ("recorder.event(Joined(w, 1.0)); state = 'joining'", set()),
    ],
)
def test_the_rule_of_event_names_sees_what_it_is_for(source: str, names: set[str]) -> None:
    assert event_names_in(source) == names
