"""Claim: in the lines where a wrong sign, comparison or index does most harm, the closest unit tests notice it.

    tracked files -> temporary folder -> the named tests pass -> per mutant: one line changed, its tests, the line put back

killed: a test failed. survived: all of them passed. broken: tests that could not be collected, or ran too long, say
nothing of the line. The lines and their tests: benchmarks/mutant_table.py.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from benchmarks.mutant_table import MUTANTS, Mutant
from benchmarks.results_table import show

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 900.0


class Verdict(StrEnum):
    """What the tests said of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    BROKEN = "broken"


def copy_tracked(root: Path, folder: Path) -> None:
    """Copies the files that git knows, as they stand in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, timeout=60)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)


def mutated(source: str, mutant: Mutant) -> str:
    """Returns the source with the mutant's line changed; indentation and line ends stay. Raises ValueError unless the line is
    there exactly once."""
    lines = source.splitlines(keepends=True)
    found = [i for i, line in enumerate(lines) if line.strip() == mutant.before]
    if len(found) != 1:
        raise ValueError(
            f"{mutant.file} has the line {mutant.before!r} {len(found)} times; write it in mutant_table.py anew"
        )
    lines[found[0]] = lines[found[0]].replace(mutant.before, mutant.after)
    return "".join(lines)


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[Verdict, str]:
    """Runs test files in `folder`, up to the first failure; returns what they say and the end of their output."""
    # No byte code on disk: a mutant of the same length within the same second would be taken for the file before it.
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    with tempfile.TemporaryFile("w+") as file:
        command = [sys.executable, "-m", "pytest", *options, *tests]
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            return Verdict.BROKEN, f"not done within {LIMIT_S:.0f} s"
        finally:
            end_group(process)
        file.seek(0)
        output = file.read()
    # With -x, tests that cannot be collected end with 1 as well.
    if code == 1 and "ERROR collecting" not in output:
        return Verdict.KILLED, output[-2000:]
    return (Verdict.SURVIVED if code == 0 else Verdict.BROKEN), output[-2000:]


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """Ends the tests' process and what they started: under a mutant a test may leave processes that wait for ever."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


def verdict(folder: Path, mutant: Mutant) -> Verdict:
    """Returns what the mutant's tests say of it; the file is as it was when this returns."""
    path = folder / mutant.file
    source = path.read_text()
    path.write_text(mutated(source, mutant))
    try:
        return run_tests(folder, mutant.tests)[0]
    finally:
        path.write_text(source)


def check_whole(folder: Path, mutants: Sequence[Mutant]) -> None:
    """Ends the program where a named test fails without any mutant: it would kill them all."""
    found, output = run_tests(folder, sorted({test for mutant in mutants for test in mutant.tests}))
    if found is not Verdict.SURVIVED:
        sys.exit(f"the named tests do not pass without a mutant ({found}):\n{output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="FILE", help="mutants of this file alone; benchmarks/results/ stays as it is")
    args = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if args.only in (None, mutant.file)]
    if not chosen:
        parser.error(f"no mutant is of {args.only}; there are some of {', '.join(sorted({m.file for m in MUTANTS}))}")
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy_tracked(ROOT, folder)
        check_whole(folder, chosen)
        for mutant in chosen:
            started = time.monotonic()
            said = verdict(folder, mutant)
            print(f"{said:9s} {time.monotonic() - started:5.0f} s  {mutant.file}: {mutant.before}", flush=True)
            rows.append({"file": mutant.file, "mutant": mutant.after, "breaks": mutant.breaks, "tests": said.value})
    counts = Counter(row["tests"] for row in rows)
    if args.only is None:
        show("mutants", f"{counts[Verdict.KILLED]} of {len(rows)} killed", rows)
    sys.exit(int(counts[Verdict.KILLED] < len(rows)))


if __name__ == "__main__":
    main()
