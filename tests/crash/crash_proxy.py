"""A go-between of client and server that counts what the client says and, at one message, lets the worst happen.

A message is one frame of PostgreSQL's protocol, over all connections of the client in the order in which they
arrive. So a point where something breaks can be named by a number, whatever the driver, and tried again. What
happens there (the client is killed, the connection cut, the server killed) is given by the test.
"""

import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from earmark.warehouse.database import Database

PORT: Final = 5432
_HEADER: Final = struct.Struct("!I")


class Part(StrEnum):
    """How much of the message the server has been given when it happens."""

    NOTHING = "nothing"
    HALF = "half"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Point:
    """The message, counted from 1, at which it happens."""

    message: int
    part: Part


class Proxy:
    """A Unix socket whose connections lead to a database, for one client at a time with all its connections."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / f".s.PGSQL.{PORT}"))
        self._listener.listen(64)
        self._target: Database | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._point: Point | None = None
        self._happens: Callable[[], None] = lambda: None
        self.messages = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, target: Database, point: Point | None, happens: Callable[[], None]) -> Database:
        """Begin to count anew for a client; returns the address that it is to use."""
        self.cut()
        with self._lock:
            self._target, self._point, self._happens, self.messages = target, point, happens, 0
        return replace(target, host=str(self._folder), port=PORT, password=None)

    def cut(self) -> None:
        """Close all connections, as a network that goes away."""
        with self._lock:
            sockets, self._open = self._open, set()
        for one in sockets:
            _close(one)

    def close(self) -> None:
        """Stop listening."""
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        target = self._target
        assert target is not None
        server = socket.socket(socket.AF_UNIX if target.host.startswith("/") else socket.AF_INET)
        try:
            if target.host.startswith("/"):
                server.connect(f"{target.host}/.s.PGSQL.{target.port}")
            else:
                server.connect((target.host, target.port))
        except OSError:
            _close(client)
            return
        with self._lock:
            self._open |= {client, server}
        threading.Thread(target=_answer, args=(server, client), daemon=True).start()
        with suppress(OSError):
            server.sendall(_read_frame(client, kind=0))  # how a connection begins: without a kind
            while True:
                self._pass_on(_read_frame(client, kind=1), server)
        _close(client)
        _close(server)

    def _pass_on(self, frame: bytes, server: socket.socket) -> None:
        with self._lock:
            self.messages += 1
            point = self._point if self._point and self._point.message == self.messages else None
        if point is None:
            server.sendall(frame)
            return
        sent = {Part.NOTHING: b"", Part.HALF: frame[: max(1, len(frame) // 2)], Part.ALL: frame}[point.part]
        server.sendall(sent)
        self._happens()


def _answer(server: socket.socket, client: socket.socket) -> None:
    with suppress(OSError):
        while data := server.recv(1 << 16):
            client.sendall(data)
    _close(client)
    _close(server)


def _read_frame(client: socket.socket, kind: int) -> bytes:
    head = _read(client, kind + _HEADER.size)
    (length,) = _HEADER.unpack(head[kind:])
    return head + _read(client, length - _HEADER.size)


def _read(client: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        more = client.recv(min(size - len(data), 1 << 20))
        if not more:
            raise ConnectionError("the client is gone")
        data += more
    return bytes(data)


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def proxy() -> Iterator[Proxy]:
    """Open a proxy on a socket of its own, in a folder whose path is short enough for one."""
    folder = Path(tempfile.mkdtemp(prefix="crash-"))
    opened = Proxy(folder)
    try:
        yield opened
    finally:
        opened.close()
        shutil.rmtree(folder, ignore_errors=True)
