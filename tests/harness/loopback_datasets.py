"""A Hub on loopback that serves one dataset repository: what it holds at which commit, and its files, in ranges."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from mmla_tasks.sources import HUB_REPOSITORY
from tests.harness.serving import serving

CHUNK = 16_384


@dataclass
class DatasetHub:
    """What the server holds, how slow it is, and what it was asked."""

    files: Mapping[str, bytes]
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    seconds_a_chunk: float = 0.0
    status: int = 200
    """What every request gets, unless 200."""
    error_code: str = ""
    endpoint: str = ""
    asked: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to take this for the Hub."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}


@contextmanager
def dataset_hub(files: Mapping[str, bytes], **options: Any) -> Iterator[DatasetHub]:
    hub = DatasetHub(files, **options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._handle(with_body=True)

        def do_HEAD(self) -> None:
            self._handle(with_body=False)

        def _handle(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            hub.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
            if hub.status != 200:
                return self._send(hub.status, b'{"error": "no"}', {"X-Error-Code": hub.error_code}, with_body)
            api, _, revision = path.partition("/revision/")
            if api == f"api/datasets/{HUB_REPOSITORY}":
                if revision not in ("", "main", hub.commit):
                    headers = {"X-Error-Code": "RevisionNotFound"}
                    return self._send(404, b'{"error": "Invalid rev id"}', headers, with_body)
                return self._send(200, json.dumps(_description(hub)).encode(), {}, with_body)
            at = f"datasets/{HUB_REPOSITORY}/resolve/{hub.commit}/"
            name = path.removeprefix(at)
            if not path.startswith(at) or name not in hub.files:
                return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, with_body)
            self._file(hub.files[name], with_body)

        def _file(self, content: bytes, with_body: bool) -> None:
            headers = {
                "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Repo-Commit": hub.commit,
                "Accept-Ranges": "bytes",
            }
            asked = self.headers.get("Range")
            first = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
            if asked:
                headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self._send(206 if asked else 200, content[first:], headers, with_body)

        def _send(self, status: int, body: bytes, headers: Mapping[str, str], with_body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for at in range(0, len(body) if with_body else 0, CHUNK):
                    self.wfile.write(body[at : at + CHUNK])
                    time.sleep(hub.seconds_a_chunk)
            except OSError:  # the other side was killed
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serving(Handler) as hub.endpoint:
        yield hub


def _sibling(name: str, content: bytes) -> dict[str, Any]:
    """A file as the Hub lists it; of large ones it tells the digest."""
    told = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
    if name.endswith((".tsv", ".md")):
        return told
    return {**told, "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}}


def _description(hub: DatasetHub) -> dict[str, Any]:
    siblings = [_sibling(name, content) for name, content in hub.files.items()]
    return {"id": HUB_REPOSITORY, "sha": hub.commit, "siblings": siblings, "private": False, "gated": False}
