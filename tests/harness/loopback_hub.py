"""A Hub on loopback that speaks the endpoints used for writing: who am I, create a repository, preupload, commit."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.harness.serving import serving

TOKEN = "hf_loopback_0123456789abcdef"


@dataclass(frozen=True)
class Commit:
    """One commit as it arrived."""

    repository: str
    """Such as ``models/me/model``."""
    pull_request: bool
    summary: str
    description: str
    files: dict[str, str]


@dataclass
class Hub:
    """What the server holds and saw."""

    endpoint: str = ""
    repositories: set[str] = field(default_factory=set)
    commits: list[Commit] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to take this for the Hub."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_TELEMETRY": "1"}


@contextmanager
def loopback_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._handle()

        def do_POST(self) -> None:
            self._handle()

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = _answer(hub, self.command, self.path, self.headers.get("Authorization"), body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serving(Handler) as hub.endpoint:
        yield hub


def _answer(hub: Hub, method: str, url: str, authorization: str | None, body: bytes) -> tuple[int, Any]:
    path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
    hub.paths.append(f"{method} {path}")
    if authorization != f"Bearer {TOKEN}":
        return 401, {"error": "Invalid username or password."}
    parts = path.strip("/").split("/")
    match method, parts:
        case "GET", ["api", "whoami-v2"]:
            return 200, {"name": "me", "type": "user", "orgs": []}
        case "POST", ["api", "repos", "create"]:
            asked = json.loads(body)
            kind, owner = asked.get("type") or "model", asked.get("organization") or "me"
            hub.repositories.add(f"{kind}s/{owner}/{asked['name']}")
            prefix = "" if kind == "model" else f"{kind}s/"
            return 200, {"url": f"{hub.endpoint}/{prefix}{owner}/{asked['name']}"}
        case "POST", ["api", kinds, owner, name, verb, "main"] if verb in ("preupload", "commit"):
            if f"{kinds}/{owner}/{name}" not in hub.repositories:
                return 404, {"error": "Repository not found"}
            answer = _preupload if verb == "preupload" else _commit
            return 200, answer(hub, f"{kinds}/{owner}/{name}", "create_pr" in query, body)
    return 404, {"error": f"this Hub does not speak {method} {path}"}


def _preupload(hub: Hub, repository: str, pull_request: bool, body: bytes) -> dict[str, Any]:
    files = json.loads(body)["files"]
    return {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}


def _commit(hub: Hub, repository: str, pull_request: bool, body: bytes) -> dict[str, Any]:
    lines = [json.loads(line) for line in body.splitlines()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    files = {
        line["value"]["path"]: base64.b64decode(line["value"]["content"]).decode()
        for line in lines
        if line["key"] == "file"
    }
    hub.commits.append(Commit(repository, pull_request, header["summary"], header["description"], files))
    number = len(hub.commits)
    at = f"{hub.endpoint}/{repository.removeprefix('models/')}"
    return {
        "commitUrl": f"{at}/commit/{number:040x}",
        "commitOid": f"{number:040x}",
        "pullRequestUrl": f"{at}/discussions/{number}" if pull_request else None,
    }
