"""A hub of datasets in this process: the few answers of the real one that `huggingface_hub` needs to download files."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit

Branches = Mapping[str, Mapping[str, bytes]]
"""Files by branch."""


@contextmanager
def hub(datasets: Mapping[str, Branches]) -> Iterator[tuple[str, list[str]]]:
    """Its address, and the paths that were asked for, as they come."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            asked.append(path)
            for name, branches in datasets.items():
                if path.startswith((f"/api/datasets/{name}/", f"/datasets/{name}/")):
                    return self._of_dataset(branches, path.partition(f"{name}/")[2])
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def _of_dataset(self, branches: Branches, rest: str) -> None:
            commits = {sha(branch): branch for branch in branches}
            what, _, where = rest.partition("/")
            if what == "revision":
                if where not in branches:
                    return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                return self._send(200, json.dumps({"id": "x/y", "sha": sha(where)}).encode())
            if what == "tree":
                files = branches[commits[where]]
                tree = [
                    {"type": "file", "path": path, "size": len(data), "oid": sha(path)} for path, data in files.items()
                ]
                return self._send(200, json.dumps(tree).encode())
            commit, _, file = where.partition("/")
            data = branches[commits[commit]][file]
            return self._send(200, data, {"ETag": f'"{sha(file)}"', "X-Repo-Commit": commit})

        def _send(self, code: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(code)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def sha(text: str) -> str:
    """Of the form of a commit."""
    return hashlib.sha1(text.encode()).hexdigest()
