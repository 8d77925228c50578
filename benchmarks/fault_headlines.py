"""What a run says of each fault that faults.py does to it, and which event tells that it is whole again."""

KILL, STOP, PAUSE = "kill -9", "SIGSTOP", "pause of 1 s"
GONE = r"process \d+ is gone"
EXPECTED: dict[tuple[str, str], str] = {
    ("worker", KILL): rf"the process of worker-\d+ died: .*; {GONE}|worker-\d+ .*; {GONE}",
    ("memory", KILL): rf"the memory's process died: {GONE}",
    ("learner", KILL): rf"the learner's process died: {GONE}",
    ("controller", KILL): r"the run's own process was killed by SIGKILL",
    ("supervisor", KILL): "",
    ("raylet", KILL): r"Ray's node process \(raylet\) died",
    ("ray head", KILL): r"Ray's head process \(gcs_server\) died",
    ("worker", STOP): r"worker-\d+ gave no sign of life within its deadline; .*; process \d+ is stopped .*",
    ("memory", STOP): r"the memory gave no answer within .*: process \d+ is stopped .*",
    ("learner", STOP): r"the learner gave no answer within .*: process \d+ is stopped .*",
    ("controller", STOP): r"the controller gave no sign of life for .*: the controller \(process \d+\) is stopped",
    ("worker", PAUSE): "",
    ("memory", PAUSE): "",
    ("learner", PAUSE): "",
    ("controller", PAUSE): "",
    ("raylet", PAUSE): "",
}
"""Fault -> the headline that names its cause; empty: none is due."""
REPAIRED = {
    "worker": "joined",
    "memory": "memory_revived",
    "learner": "learner_revived",
    "controller": "resumed",
    "supervisor": "resumed",
    "raylet": "resumed",
    "ray head": "resumed",
}
"""Target -> the event that says it is whole again; a pause needs none."""
