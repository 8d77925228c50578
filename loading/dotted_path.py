"""Users' own tasks, scorers, rewards, advantages, losses, schedules, intrinsic formulas and engines, named in the
configuration as `FILE.py:name` or `package.module:name`.

A file needs no install and no PYTHONPATH, and its folder may have any name: what it imports from beside itself is found too.
"""

import difflib
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from contracts.errors import ConfigError
from loading.near_names import ALIKE, did_you_mean
from loading.own_packages import PACKAGES
from loading.users_code import place_of, shown

CODE_SUFFIX = ".py"


def split_code(path: str) -> tuple[str, str]:
    """File or module, and the name in it."""
    where, _, name = path.rpartition(":")
    return where, name


def short_name(path: str) -> str:
    """For people: `my_reward.py:length` for a file anywhere, a dotted path as it is."""
    where, name = split_code(path)
    return f"{Path(where).name}:{name}" if where.endswith(CODE_SUFFIX) else path


def is_dotted(name: str) -> bool:
    """Whether a setting names code of the user's, and not an entry of a table of ours."""
    return ":" in name


def load_dotted(path: str, setting: str) -> Any:
    """What the path names. Raises ConfigError that names the setting and the way out."""
    where, name = split_code(path)
    if not where or not name:
        raise ConfigError(f"{setting} = '{path}': expected FILE.py:name or package.module:name")
    module = _file(Path(where), path, setting) if where.endswith(CODE_SUFFIX) else _module(where, path, setting)
    if not hasattr(module, name):
        raise ConfigError(f"{setting} = '{path}': module {where} has no '{name}'.{_there(module, name, setting)}")
    found = getattr(module, name)
    if not callable(found):
        raise ConfigError(
            f"{setting} = '{path}': '{name}' in {where} is {shown(found)}, of type {type(found).__name__}; name a "
            f"{'class' if setting == 'task.kind' else 'function'} that takes what docs/own_code.md says"
        )
    return found


def _there(module: ModuleType, name: str, setting: str) -> str:
    """The nearest name that the module knows, and what it has of its own. A task is a class; scorers and rewards are functions,
    or objects that can be called."""
    of_task = setting == "task.kind"
    usable = {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and callable(value) and isinstance(value, type) == of_task
    }
    own = sorted(key for key, value in usable.items() if getattr(value, "__module__", None) == module.__name__)
    kind = "classes" if of_task else "functions"
    there = f"{kind.capitalize()} there: {', '.join(own)}" if own else f"It has no {kind} of its own"
    return f"{_near(name, usable)} {there}"


def _near(name: str, known: Collection[str]) -> str:
    """A sentence with a space before it, or nothing; in any case of letters."""
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=ALIKE)
    return f" Did you mean '{folded[close[0]]}'?" if close else ""


def _module(where: str, path: str, setting: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{setting} = '{path}': no module '{error.name}'.{_near_module(error.name)} {_way_out(where, error.name, path)}"
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{setting} = '{path}': importing {where} failed{_told(error)}") from error


def _near_module(missing: str | None) -> str:
    """Among what stands beside it: in its package, or everywhere that Python looks."""
    package, dot, _ = (missing or "").rpartition(".")
    inside = getattr(sys.modules.get(package), "__path__", None)
    return _near(missing or "", [f"{package}{dot}{module.name}" for module in pkgutil.iter_modules(inside)])


def _way_out(where: str, missing: str | None, path: str) -> str:
    top = where.partition(".")[0]
    if missing is not None and missing.partition(".")[0] == top and top in PACKAGES:
        file = f"{where.replace('.', '/')}.py"
        return (
            f"'{top}' is a package of memr's own, so a folder of yours with that name is not looked into: name the file, "
            f"'{file}:{split_code(path)[1]}'"
        )
    return (
        "Install it into memr's environment, put the folder that holds it on PYTHONPATH, or name the file: "
        f"'{where.rpartition('.')[2]}.py:{split_code(path)[1]}'"
    )


def _file(file: Path, path: str, setting: str) -> ModuleType:
    """The module of a file, loaded once in a process."""
    if not os.path.isfile(file):  # a path that cannot be looked at is none either
        raise ConfigError(
            f"{setting} = '{path}': no such file: {file.absolute()}.{did_you_mean(file, folder=False)} A path is "
            "relative to the configuration file, and to the working directory when it comes from --set"
        )
    whole = file.resolve()
    name = f"memr_users_{whole.stem}_{hashlib.sha256(str(whole).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, whole)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if str(whole.parent) not in sys.path:
        sys.path.append(str(whole.parent))  # last: what is beside the file never hides what memr needs
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that ends where it is loaded
        del sys.modules[name]
        raise ConfigError(f"{setting} = '{path}': loading {file.name} failed{_told(error)}") from error
    return module


def _told(error: BaseException) -> str:
    return f": {type(error).__name__}: {error} ({place_of(error)})"
