"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.watch.terminal import terminal

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="TOML file, for example configs/quickstart.toml")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be repeated.")
]
UnsetOption = Annotated[
    list[str] | None,
    typer.Option("--unset", metavar="SECTION.KEY", help="As if CONFIG did not name this setting; may be repeated."),
]
VersionOption = Annotated[
    int | None, typer.Option(min=0, help="Which of the run's versions; default: the newest that it keeps")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, for example runs/quickstart")]
AddressOption = Annotated[
    str | None, typer.Option(metavar="auto|HOST:PORT", help="Join this Ray cluster instead of starting a local one")
]


def _say_version(asked: bool) -> None:
    if asked:
        from cluster.record.run_dir import own_version

        terminal().print(own_version())
        raise typer.Exit


ShowVersion = Annotated[
    bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show memr's version and exit.")
]
