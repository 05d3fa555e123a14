"""A stand-in for the Hugging Face hub: what its HTTP interface answers, of repositories in memory, on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: (kind, name) -> file -> content
Repositories = dict[tuple[str, str], dict[str, bytes]]


class _Handler(BaseHTTPRequestHandler):
    repositories: Repositories
    asked: list[str]
    private: dict[tuple[str, str], bool]

    def log_message(self, *told: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def _missing(self) -> None:
        self._answer(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/(\w+)/(.+)", path):
            files = self.repositories.get(("dataset" if found[1] else "model", found[2]), {})
            if found[4] not in files:
                self._answer(404, X_Error_Code="EntryNotFound")
                return
            body = files[found[4]]
            self._answer(200, body, ETag=f'"{hash(body):x}"', X_Repo_Commit=self._commit(files))
            return
        found = re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(/revision/\w+|/tree/\w+)?", path)
        key = (found[1], found[2]) if found else ("", "")
        if found is None or key not in self.repositories:
            self._missing()
            return
        files = self.repositories[key]
        if (found[3] or "").startswith("/tree"):
            oids = {name: hashlib.sha1(body).hexdigest() for name, body in files.items()}
            self._json([{"type": "file", "path": n, "size": len(b), "oid": oids[n]} for n, b in files.items()])
            return
        siblings = [{"rfilename": name, "size": len(body)} for name, body in files.items()]
        self._json({"id": key[1], "sha": self._commit(files), "private": self.private.get(key), "siblings": siblings})

    @staticmethod
    def _commit(files: dict[str, bytes]) -> str:
        return hashlib.sha1(repr(sorted((name, hash(body)) for name, body in files.items())).encode()).hexdigest()

    def do_POST(self) -> None:
        self.asked.append(f"POST {self.path}")
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/api/repos/create":
            wanted: dict[str, Any] = json.loads(data)
            name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            key = (wanted.get("type") or "model", name)
            self.repositories.setdefault(key, {})
            self.private[key] = wanted.get("private", False) or wanted.get("visibility") == "private"
            place = {"model": "", "dataset": "datasets/"}[key[0]]
            self._json({"url": f"http://{self.headers['Host']}/{place}{name}", "id": name})
            return
        if self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
            return
        found = re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/(preupload|commit)/main(\?.*)?", self.path)
        if found is None or (found[1], found[2]) not in self.repositories:
            self._missing()
            return
        files = self.repositories[found[1], found[2]]
        if found[3] == "preupload":
            names = [item["path"] for item in json.loads(data)["files"]]
            self._json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
            return
        for line in data.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "deletedFile":
                files.pop(entry["value"]["path"])
        commit = self._commit(files)
        url = f"http://{self.headers['Host']}/{found[2]}/commit/{commit}"
        self._json({"commitUrl": url, "commitOid": commit, "success": True})


@contextmanager
def hub_server() -> Iterator[tuple[str, type[_Handler]]]:
    """Serve an empty hub; its address, and what it holds and was asked."""
    handler = type("Hub", (_Handler,), {"repositories": {}, "asked": [], "private": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()


__all__ = ["Repositories", "hub_server"]
