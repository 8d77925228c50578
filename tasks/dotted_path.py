"""Users' own tasks, scorers and rewards, named in the configuration as `package.module:name`."""

import importlib
from typing import Any

from contracts.errors import ConfigError


def load_dotted(path: str, setting: str) -> Any:
    """What the path names. Raises ConfigError that names the setting and the way out."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise ConfigError(f"{setting} = '{path}': expected package.module:name")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{setting} = '{path}': no module '{error.name}'. Install it into memr's environment, or put the folder "
            "that holds it on PYTHONPATH"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"{setting} = '{path}': importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, name):
        raise ConfigError(f"{setting} = '{path}': module {module_name} has no '{name}'")
    return getattr(module, name)
