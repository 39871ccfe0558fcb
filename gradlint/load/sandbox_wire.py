"""What the parent and its worker process say to each other: length-prefixed pickles over sockets of their own."""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from gradlint.graph.ir import Span

_LENGTH = struct.Struct("!I")


@dataclass(frozen=True)
class Request:
    """Parent → server: run `function` ("module:name") on `payload` in a fork, which answers on its own socket."""

    job: int
    function: str
    payload: Any
    threads: int = 0  # torch threads, 0 for torch's own choice
    preload: tuple[str, ...] = ()  # modules to import before forking, so that later forks have them


@dataclass(frozen=True)
class Notice:
    """Server → parent: the server is ready, or cannot run, or a fork started or ended."""

    kind: Literal["ready", "fatal", "started", "ended"]
    job: int = -1
    pid: int = 0
    status: int = 0  # as of os.waitpid
    message: str = ""


@dataclass(frozen=True)
class Answer:
    """Fork → parent: one result, the modules it imported, an error, or the end."""

    kind: Literal["result", "modules", "error", "end"]
    value: Any = None
    error: Wrong | None = None


@dataclass(frozen=True)
class Wrong:
    """An exception in transit: `kind` is a GradlintError's, "internal" for any other; `trace` is its traceback."""

    kind: str
    message: str
    hint: str = ""
    span: Span | None = None
    trace: str = ""


@dataclass
class Buffer:
    """Bytes as they arrive, cut into the objects that were sent."""

    data: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> Iterator[Any]:
        """The objects completed by more bytes."""
        self.data += data
        while len(self.data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self.data)
            if len(self.data) < _LENGTH.size + length:
                return
            body = bytes(self.data[_LENGTH.size : _LENGTH.size + length])
            del self.data[: _LENGTH.size + length]
            yield pickle.loads(body)


def packed(message: object) -> bytes:
    """A message as bytes."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


def send_with(channel: socket.socket, message: object, descriptors: list[int]) -> None:
    """Send a message and, with its first bytes, file descriptors."""
    data = packed(message)
    socket.send_fds(channel, [data[: _LENGTH.size]], descriptors)
    channel.sendall(data[_LENGTH.size :])


def receive_with(channel: socket.socket, descriptors: int) -> tuple[Any, list[int]] | None:
    """A message sent by `send_with` and its file descriptors, or None when the other side is gone."""
    head, fds, _, _ = socket.recv_fds(channel, _LENGTH.size, descriptors)
    while head and len(head) < _LENGTH.size:
        head += channel.recv(_LENGTH.size - len(head))
    if not head:
        return None
    (length,) = _LENGTH.unpack(head)
    body = bytearray()
    while len(body) < length:
        part = channel.recv(min(length - len(body), 1 << 20))
        if not part:
            return None
        body += part
    return pickle.loads(bytes(body)), list(fds)
