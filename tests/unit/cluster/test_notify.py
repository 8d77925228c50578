"""Services and commands get the events; and whatever they do, the run neither waits nor fails."""

import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from pydantic import ValidationError

from cluster.commands.summary import show_incidents
from cluster.config.notify import NotifySettings
from cluster.config.run_config import load_config
from cluster.record.events.event import Event
from cluster.record.events.failures import NoticeFailed
from cluster.record.recorder import Recorder
from cluster.watch import notify
from cluster.watch.notify import Notifier
from cluster.watch.notify_destination import QUEUE_EVENTS
from cluster.watch.notify_watcher import NotifyWatcher
from cluster.watch.terminal import into
from contracts.errors import ConfigError

WITHIN_S = 30.0  # a bound for slow machines; nothing here takes it


class Server:
    """A webhook on loopback. `answer`: its status; `hold`: set to let answers go."""

    def __init__(self, answer: int = 200, *, hangs: bool = False) -> None:
        self.received: list[tuple[str, str | None, Any]] = []
        self.arrived = threading.Event()
        self.hold = threading.Event()
        if not hangs:
            self.hold.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.received.append((self.path, self.headers["Content-Type"], json.loads(body)))
                server.arrived.set()
                server.hold.wait(WITHIN_S)
                try:
                    self.send_response(answer)
                    self.send_header("Location", "/elsewhere")
                    self.end_headers()
                except OSError:  # the client has gone
                    pass

            def log_message(self, format: str, *args: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/hook/secret"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.hold.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def hanging() -> Iterator[Server]:
    made = Server(hangs=True)
    yield made
    made.close()


def event(name: str = "alarm", **details: Any) -> dict[str, Any]:
    return {"time_s": 1.0, "event": name} | details


def within(timeout_s: float, **settings: Any) -> NotifySettings:
    """[notify] whose hooks may take another time than they have."""
    return NotifySettings(**settings).model_copy(update={"timeout_s": timeout_s})


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def told(title: str, message: str, kind: str) -> dict[str, Any]:
    """Apprise's JSON."""
    return {"version": "1.0", "title": f"memr: {title}", "message": message, "attachments": [], "type": kind}


def test_a_service_gets_the_events_in_order_with_their_severity(server: Server) -> None:
    notifier = Notifier(NotifySettings(urls=(server.url,)))
    notifier.send(event("start", run="r"))
    notifier.send(event("alarm", headline="disk", free_bytes=3))
    notifier.send(event("stop", run="r", exit_code=3))
    notifier.send(event("stop", exit_code=0))
    notifier.send(event("stop", exit_code=130))
    notifier.close(WITHIN_S)
    assert [(path, kind) for path, kind, _ in server.received] == [("/hook/secret", "application/json")] * 5
    assert [body for _, _, body in server.received] == [
        told("start", "run: r", "info"),
        told("alarm", "disk\nfree_bytes: 3", "warning"),
        told("stop", "run: r\nexit_code: 3", "failure"),
        told("stop", "exit_code: 0", "success"),
        told("stop", "exit_code: 130", "info"),
    ]
    assert (notifier.failures, notifier.num_failed, notifier.dropped) == ([], 0, 0)


def test_only_listed_events_are_sent(server: Server) -> None:
    notifier = Notifier(NotifySettings(urls=(server.url,), events=("stop",)))
    for name in ("start", "published", "stop"):
        notifier.send(event(name))
    notifier.send({"no": "name"})
    notifier.close(WITHIN_S)
    assert [body["title"] for _, _, body in server.received] == ["memr: stop"]


def test_a_secret_address_may_come_from_the_environment(server: Server) -> None:
    notifier = Notifier(NotifySettings(urls=("$HOOK",)), {**os.environ, "HOOK": server.url})
    notifier.send(event())
    notifier.close(WITHIN_S)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "the environment has no HOOK, which notify.urls names"),
        ({"HOOK": "file:///etc/passwd"}, "an address that Apprise does not know"),
    ],
)
def test_an_address_that_is_not_there_is_a_counted_failure(environment: dict[str, str], reason: str) -> None:
    notifier = Notifier(NotifySettings(urls=("$HOOK",)), environment)
    notifier.send(event())
    notifier.close(WITHIN_S)
    (failure,) = notifier.failures
    assert reason in failure


@pytest.mark.parametrize("status", [302, 307, 404, 500])
def test_an_answer_that_is_no_success_is_counted_and_no_redirect_is_followed(status: int) -> None:
    server = Server(status)
    notifier = Notifier(NotifySettings(urls=(server.url,)))
    notifier.send(event())
    notifier.close(WITHIN_S)
    server.close()
    (failure,) = notifier.failures
    assert failure.startswith("notify.urls[0] did not take the event 'alarm': ")
    assert f"error={status}" in failure
    assert [path for path, _, _ in server.received] == ["/hook/secret"]


def test_a_refused_port_is_counted_and_the_next_event_is_tried() -> None:
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        notifier = Notifier(NotifySettings(urls=(f"json://127.0.0.1:{taken.getsockname()[1]}/secret",)))
        notifier.send(event("start"))
        notifier.send(event("stop"))
        notifier.close(WITHIN_S)
    assert notifier.num_failed == 2
    assert all("onnection error" in failure and "secret" not in failure for failure in notifier.failures)


def test_a_service_that_hangs_is_given_up(hanging: Server) -> None:
    notifier = Notifier(within(0.5, urls=(hanging.url,)))
    notifier.send(event())
    notifier.close(WITHIN_S)
    (failure,) = notifier.failures
    assert failure.startswith("notify.urls[0] did not take the event 'alarm': ")


def test_one_hook_that_fails_does_not_keep_the_event_from_the_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = python(f"import sys; open({str(out)!r}, 'w').write(sys.stdin.read())")
    notifier = Notifier(within(WITHIN_S, urls=("$NOT_SET",), command=command), dict(os.environ))
    notifier.send(event())
    notifier.close(WITHIN_S)
    assert notifier.num_failed == 1
    assert json.loads(out.read_text()) == event()


def test_a_destination_that_hangs_neither_delays_the_others_nor_loses_their_events(
    server: Server, hanging: Server
) -> None:
    notifier = Notifier(within(WITHIN_S, urls=(hanging.url, server.url)))
    for name in ("start", "alarm", "stop"):
        notifier.send(event(name))
    assert hanging.arrived.wait(WITHIN_S)
    assert received(server, 3) == ["memr: start", "memr: alarm", "memr: stop"]
    notifier.close(0.0)
    assert len(hanging.received) == 1
    (failed,) = notifier.first_failures()
    assert failed.headline == "notify.urls[0] did not take the event 'start': it had not by the end of the run"


def received(server: Server, count: int) -> list[str]:
    """Titles, once there are so many."""
    waiting, until = threading.Event(), time.monotonic() + WITHIN_S
    while len(server.received) < count and time.monotonic() < until:
        waiting.wait(0.02)
    return [body["title"] for _, _, body in server.received]


def test_the_reason_is_that_of_its_own_destination() -> None:
    """Two answers at the same moment."""
    servers = Server(404, hangs=True), Server(500, hangs=True)
    notifier = Notifier(within(WITHIN_S, urls=tuple(server.url for server in servers)))
    notifier.send(event())
    for server in servers:
        assert server.arrived.wait(WITHIN_S)
    for server in servers:
        server.hold.set()
    notifier.close(WITHIN_S)
    for server in servers:
        server.close()
    first, second = sorted(notifier.failures)
    assert "urls[0]" in first
    assert "error=404" in first
    assert "urls[1]" in second
    assert "error=500" in second


def test_the_first_failure_of_each_destination_is_an_event_without_its_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refused = f"json://user:pass-word@127.0.0.1:{taken.getsockname()[1]}/secret"
        command = python("raise SystemExit(3)")
        notifier = Notifier(within(WITHIN_S, urls=("$NOT_SET", refused), command=command), dict(os.environ))
        notifier.send(event("start"))
        notifier.send(event("stop"))
        notifier.close(WITHIN_S)
    assert notifier.num_failed == 6
    command_failed, unset, connection = sorted(failed.headline for failed in notifier.first_failures())
    assert command_failed == "notify.command did not take the event 'start': exit code 3"
    assert unset == (
        "notify.urls[0] did not take the event 'start': the environment has no NOT_SET, which notify.urls names"
    )
    assert connection.startswith("notify.urls[1] did not take the event 'start': ")
    assert not any(part in connection for part in ("user", "pass-word", "127.0.0.1", "secret"))
    assert notifier.first_failures() == [], "each is reported once"


class Shown:
    """A watcher that keeps the events."""

    def __init__(self) -> None:
        self.headlines: list[str] = []

    def watch(self, kind: str, line: dict[str, Any]) -> None: ...

    def show_event(self, event: Event) -> None:
        self.headlines.append(event.headline)

    def show_groups(self, groups: Any) -> None: ...

    def close(self) -> None: ...


def test_a_failed_notice_is_an_event_of_the_run_that_its_console_shows(tmp_path: Path, hanging: Server) -> None:
    notifier = Notifier(within(WITHIN_S, command=("/no/such/program",), urls=(hanging.url,)))
    recorder, shown = Recorder(tmp_path), Shown()
    for watcher in (NotifyWatcher(notifier, tmp_path, recorder.event, close_within_s=0.0), shown):
        recorder.add_watcher(watcher)
    notifier.send(event("start"))
    waiting, until = threading.Event(), time.monotonic() + WITHIN_S
    while not shown.headlines and time.monotonic() < until:
        waiting.wait(0.02)
        recorder.status({})
    assert [line.partition(":")[0] for line in shown.headlines] == ["notify.command did not take the event 'start'"]
    recorder.close()
    assert len(shown.headlines) == 2, "what the end of the run found"
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [(line["event"], line["destination"], line["notice"]) for line in lines] == [
        ("notice_failed", "notify.command", "start"),
        ("notice_failed", "notify.urls[0]", "start"),
    ]


def test_status_notes_the_last_failed_notice_of_each_destination(tmp_path: Path) -> None:
    lost = [
        NoticeFailed(f"notify.urls[{number}]", name, "why")
        for number, name in ((0, "start"), (1, "stop"), (0, "alarm"))
    ]
    run: Any = SimpleNamespace(path=tmp_path, incidents=[], events=lost)
    with (tmp_path / "shown").open("w+") as file:
        show_incidents(into(file), run)
        file.seek(0)
        assert file.read().splitlines() == [
            "note: notify.urls[0] did not take the event 'alarm': why",
            "note: notify.urls[1] did not take the event 'stop': why",
        ]


def test_the_end_of_a_run_waits_for_notices_at_most_5_seconds() -> None:
    """The run's own process first, then the supervisor."""
    assert notify.RUN_CLOSES_WITHIN_S + notify.SUPERVISOR_CLOSES_WITHIN_S <= 5.0


def test_send_never_waits_for_a_hook_and_a_full_queue_drops_and_counts(hanging: Server) -> None:
    notifier = Notifier(within(WITHIN_S, urls=(hanging.url,)))
    notifier.send(event())
    assert hanging.arrived.wait(WITHIN_S)  # the thread is busy with the first from here on
    for _ in range(QUEUE_EVENTS + 3):
        notifier.send(event())
    assert notifier.dropped == 3
    notifier.close(0.0)
    assert notifier.dropped == QUEUE_EVENTS + 3
    notifier.send(event())
    assert notifier.dropped == QUEUE_EVENTS + 4
    assert len(hanging.received) == 1


def test_a_command_gets_the_event_on_stdin_and_its_name_in_the_environment(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"import os, sys; open({str(out)!r}, 'a').write(os.environ['MEMR_EVENT'] + ' ' + sys.stdin.read())"
    notifier = Notifier(NotifySettings(command=python(code)))
    notifier.send(event("restart", text="x" * 300_000))  # more than a pipe holds
    notifier.close(WITHIN_S)
    name, _, body = out.read_text().partition(" ")
    assert name == "restart"
    assert json.loads(body) == event("restart", text="x" * 300_000)
    assert notifier.failures == []


def test_a_command_is_run_without_a_shell(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
    notifier = Notifier(NotifySettings(command=(*python(code), str(out), "$HOME; `id` > x")))
    notifier.send(event())
    notifier.close(WITHIN_S)
    assert out.read_text() == "$HOME; `id` > x"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("/no/such/program",), "No such file"),
        (python("raise SystemExit(3)"), "exit code 3"),
        (python("import os; os.close(0)"), None),  # reads nothing: its own affair
    ],
)
def test_a_command_that_fails_is_counted(command: tuple[str, ...], reason: str | None) -> None:
    notifier = Notifier(NotifySettings(command=command))
    notifier.send(event())
    notifier.close(WITHIN_S)
    assert notifier.num_failed == (reason is not None)
    assert all(str(reason) in failure for failure in notifier.failures)


HANGS = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "open({partial!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
    "os.rename({partial!r}, {out!r})\n"
    "time.sleep(600)\n"
)


def hanging_command(out: Path) -> tuple[str, ...]:
    return python(HANGS.format(partial=f"{out}.partial", out=str(out)))


def ended(pids: list[int]) -> bool:
    alive = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, left = psutil.wait_procs(alive, timeout=WITHIN_S)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in left)


def test_a_command_that_hangs_is_killed() -> None:
    notifier = Notifier(within(0.5, command=python("import time; time.sleep(600)")))
    notifier.send(event())
    notifier.close(WITHIN_S)
    assert notifier.failures == ["notify.command did not take the event 'alarm': no end within 0.5 s: it was killed"]


def test_close_does_not_wait_longer_than_it_may_and_kills_the_command_with_all_it_started(tmp_path: Path) -> None:
    out = tmp_path / "pids"
    notifier = Notifier(within(600.0, command=hanging_command(out)))
    notifier.send(event("start"))
    notifier.send(event("stop"))
    waiting = threading.Event()
    while not out.exists():
        waiting.wait(0.02)
    notifier.close(0.1)
    assert notifier.dropped == 1
    assert ended([int(pid) for pid in out.read_text().split()])


def test_nothing_is_begun_without_a_hook() -> None:
    notifier = Notifier(NotifySettings())
    notifier.send(event())
    notifier.close(0.0)
    assert not notifier.enabled
    assert (notifier.failures, notifier.dropped) == ([], 0)


def test_closing_twice_is_closing_once(server: Server) -> None:
    notifier = Notifier(NotifySettings(urls=(server.url,)))
    notifier.close(WITHIN_S)
    notifier.close(WITHIN_S)
    assert notifier.dropped == 0


def test_events_with_what_json_lacks_are_sent_and_hopeless_ones_are_counted(server: Server) -> None:
    circle: list[Any] = []
    circle.append(circle)
    notifier = Notifier(NotifySettings(urls=(server.url,)))
    notifier.send(event(loss=math.nan, parts={1: (math.inf, Path("x"))}))
    notifier.send(event(circle=circle))
    notifier.close(WITHIN_S)
    ((_, _, body),) = server.received
    assert body["message"] == 'loss: nan\nparts: {"1": ["inf", "x"]}'
    assert notifier.failures == ["notify did not take the event 'alarm': it cannot be written as JSON: RecursionError"]


def test_what_is_sent_is_the_event_as_it_was(server: Server) -> None:
    notifier = Notifier(NotifySettings(urls=(server.url,)))
    line = event(workers=2)
    notifier.send(line)
    line["workers"] = 3
    notifier.close(WITHIN_S)
    assert server.received[0][2]["message"] == "workers: 2"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "host/x", "http://", "slack://few", "secret://a"]
)
def test_an_address_that_apprise_does_not_know_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValidationError, match="an address that Apprise does not know") as refused:
        NotifySettings(urls=(url,))
    assert url not in str(refused.value.errors()[0]["msg"])


def test_a_webhook_of_an_older_configuration_is_one_of_the_addresses(server: Server) -> None:
    settings = NotifySettings.model_validate({"webhook_url": server.url})
    assert settings.urls == (server.url,)
    assert NotifySettings.model_validate({"webhook_url": None}) == NotifySettings()
    assert NotifySettings.model_validate({"webhook_url": "$HOOK", "urls": ["ntfy://x"]}).urls == ("ntfy://x", "$HOOK")
    notifier = Notifier(settings)
    notifier.send(event("start"))
    notifier.close(WITHIN_S)
    assert len(server.received) == 1


def test_settings_come_from_toml_arrays_and_refuse_a_command_without_a_program() -> None:
    settings = NotifySettings.model_validate({"command": ["notify-send", "memr"], "events": ["stop"]})
    assert settings.command == ("notify-send", "memr")
    for command in ([], [""]):
        with pytest.raises(ValidationError):
            NotifySettings.model_validate({"command": command})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("notify.urls=http://x", "notify.webhook_url=http://y"), r"notify\.urls.*Input should be a list"),
        (("notify.webhook_url=ftp://y",), r"webhook_url.*an address that Apprise does not know"),
        (("notify.webhook_url=3",), r"webhook_url.*a text"),
    ],
)
def test_a_bad_address_is_refused_under_the_name_it_was_given(
    overrides: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "c.toml"
    file.write_text("")
    with pytest.raises(ConfigError, match=message) as refused:
        load_config(file, list(overrides))
    assert "urls[0]" not in str(refused.value)
    assert "'h', 't'" not in str(refused.value)
