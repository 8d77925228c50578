"""Users' own tasks, scorers and rewards, named in the configuration as `FILE.py:name` or `package.module:name`.

A file needs no install and no PYTHONPATH, and its folder may have any name: what it imports from beside itself is found too.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from contracts.errors import ConfigError
from contracts.own_packages import PACKAGES
from tasks.users_code import place_of, shown

CODE_SUFFIX = ".py"


def split_code(path: str) -> tuple[str, str]:
    """File or module, and the name in it."""
    where, _, name = path.rpartition(":")
    return where, name


def short_name(path: str) -> str:
    """For people: `my_reward.py:length` for a file anywhere, a dotted path as it is."""
    where, name = split_code(path)
    return f"{Path(where).name}:{name}" if where.endswith(CODE_SUFFIX) else path


def load_dotted(path: str, setting: str) -> Any:
    """What the path names. Raises ConfigError that names the setting and the way out."""
    where, name = split_code(path)
    if not where or not name:
        raise ConfigError(f"{setting} = '{path}': expected FILE.py:name or package.module:name")
    module = _file(Path(where), path, setting) if where.endswith(CODE_SUFFIX) else _module(where, path, setting)
    if not hasattr(module, name):
        raise ConfigError(f"{setting} = '{path}': module {where} has no '{name}'")
    found = getattr(module, name)
    if not callable(found):
        raise ConfigError(
            f"{setting} = '{path}': '{name}' in {where} is {shown(found)}, of type {type(found).__name__}; name a "
            f"{'class' if setting == 'task.kind' else 'function'} that takes what docs/own_code.md says"
        )
    return found


def _module(where: str, path: str, setting: str) -> ModuleType:
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{setting} = '{path}': no module '{error.name}'. {_way_out(where, error.name, path)}"
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{setting} = '{path}': importing {where} failed{_told(error)}") from error


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
            f"{setting} = '{path}': no such file: {file.absolute()}. A path is relative to the configuration file, and to "
            "the working directory when it comes from --set"
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
