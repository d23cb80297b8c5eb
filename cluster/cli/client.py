"""Talking to the daemon: HTTP over its unix socket, with the standard library only.

`http.client` and not aiohttp, because a command must start fast: aiohttp's import costs more than
the whole command.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

from cluster.cli.document import Document, decode
from cluster.cli.failure import DaemonUnreachable, Failure, Refused
from cluster.node.config import NodeConfig

API_PREFIX = "/v1.51"
_OK_MAX = 299

Query = Mapping[str, str | Mapping[str, list[str]]]
"""Values that are mappings are sent as Docker's filters."""


def default_host() -> str:
    """Return where the daemon listens, when nothing else is said."""
    for name in ("HIVEWIRE_HOST", "DOCKER_HOST"):
        if os.environ.get(name):
            return os.environ[name]
    return f"unix://{NodeConfig().api_socket}"


class Client:
    """Calls the daemon; one connection for each call."""

    def __init__(self, host: str) -> None:
        scheme, separator, path = host.partition("://")
        if not separator or scheme != "unix" or not path:
            raise Failure(f"invalid host {host!r}: only unix:///path/to/socket is offered")
        self._host = host
        self._socket_path = Path(path)

    def get(self, path: str, query: Query | None = None) -> Document:
        """Return what GET answers."""
        return self._call("GET", path, query)

    def post(self, path: str, query: Query | None = None, body: object = None) -> Document:
        """Return what POST answers."""
        return self._call("POST", path, query, body)

    def delete(self, path: str, query: Query | None = None) -> Document:
        """Return what DELETE answers."""
        return self._call("DELETE", path, query)

    @contextmanager
    def stream(self, path: str, query: Query | None = None) -> Generator[http.client.HTTPResponse]:
        """Lend the response of a GET, to be read piece by piece."""
        connection = self._connect()
        try:
            yield self._send(connection, "GET", path, query, None)
        finally:
            connection.close()

    def _call(
        self, method: str, path: str, query: Query | None = None, body: object = None
    ) -> Document:
        connection = self._connect()
        try:
            answer = self._send(connection, method, path, query, body).read()
        except (http.client.HTTPException, OSError) as error:
            raise DaemonUnreachable(f"the daemon at {self._host} broke off: {error}") from error
        finally:
            connection.close()
        return decode(answer) if answer else Document(None)

    def _connect(self) -> _UnixConnection:
        connection = _UnixConnection(self._socket_path)
        try:
            connection.connect()
        except OSError as error:
            raise DaemonUnreachable(
                f"Cannot connect to the hivewire daemon at {self._host} ({error.strerror}). "
                "Is the daemon running?"
            ) from error
        return connection

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        query: Query | None,
        body: object,
    ) -> http.client.HTTPResponse:
        headers = {"User-Agent": "hivewire"}
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection.request(method, API_PREFIX + path + _encode(query), payload, headers)
        response = connection.getresponse()
        if response.status > _OK_MAX:
            raise Refused(response.status, _message(response))
        return response


def segment(name: str) -> str:
    """Return a name as one segment of a path."""
    return quote(name, safe="")


def _encode(query: Query | None) -> str:
    if not query:
        return ""
    values = {
        key: value if isinstance(value, str) else json.dumps(_filters(value))
        for key, value in query.items()
    }
    return "?" + urlencode(values)


def _filters(values: Mapping[str, list[str]]) -> dict[str, dict[str, bool]]:
    return {key: dict.fromkeys(names, True) for key, names in values.items()}


def _message(response: http.client.HTTPResponse) -> str:
    body = response.read()
    try:
        return decode(body).text("message") or response.reason
    except ValueError:
        return body.decode("utf-8", "replace").strip() or response.reason


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        self.sock = connection
