"""`make bench`: every benchmark that needs nothing from outside, one after the other.

Comparisons want something that memr does not ship, so they are started by hand:
    python -m benchmarks.grpo_step --model FOLDER --questions FILE --trl-python PYTHON
    python -m benchmarks.memory_service --texts GSM8K.jsonl --published CHECKOUT
"""

import subprocess
import sys

from cluster.launch.model_store import PACKAGED_MODEL, resolve_model


def main() -> None:
    model = resolve_model(PACKAGED_MODEL)
    commands = [
        ["control_plane"],
        ["overlap"],
        ["determinism"],
        ["busy_machine"],
        ["rollout_engine", "--model", model],
        ["learner_update", "--model", model],
    ]
    for name, *arguments in commands:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)


if __name__ == "__main__":
    main()
