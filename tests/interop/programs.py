"""Starts client.py and server.py and drives them by their JSON lines; plays a server whose every byte a test decides."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

import chp
from jsonlines import Json, to64
from server import bind_consecutive

DEADLINE_S = 10.0
HERE = Path(__file__).parent


class Program:
    """A running program. `with` ends it, whatever happened."""

    def __init__(self, script: str, *arguments: str) -> None:
        pipe = subprocess.PIPE
        self.name = " ".join((script, *arguments))
        self.process = subprocess.Popen([sys.executable, str(HERE / script), *arguments], stdin=pipe, stdout=pipe, stderr=pipe)
        self.seen: deque[bytes] = deque(maxlen=20)
        self._events: queue.SimpleQueue[Json | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.seen.append(line)
            self._events.put(json.loads(line))
        self._events.put(None)

    def send(self, **command: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def expect(self, *events: str, without: str = "", **fields: Any) -> Json:
        """The next of these events with these fields; those before it are passed over, but none of them may be a `without`."""
        expires = time.monotonic() + DEADLINE_S
        while True:
            try:
                found = self._events.get(timeout=max(0.0, expires - time.monotonic()))
            except queue.Empty:
                found = None
            if found is None or found["event"] == without:
                raise AssertionError(f"{self.name}: expected {events} {fields}, got {found} after\n{self.tail()}")
            if found["event"] in events and fields.items() <= found.items():
                return found

    def dump(self) -> Json:
        self.send(dump=True)
        values: Json = self.expect("dump")["map"]
        return values

    def set(self, key: str, value: str, **fields: Any) -> None:
        self.send(set={"key": key, "value64": to64(value.encode()), **fields})

    def ends(self, code: int, reason: str = "") -> None:
        """It ends by itself with this code, and says this on stderr."""
        assert self.process.stderr
        got = self.process.wait(DEADLINE_S)
        message = self.process.stderr.read().decode()
        assert got == code and reason in message, (
            f"{self.name}: expected code {code} and '{reason}', got {got} and '{message}', {self.tail()}"
        )

    def tail(self) -> str:
        return b"".join(self.seen).decode()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


class FakeServer:
    """The three sockets of a server, and nothing behind them."""

    def __init__(self, receive_limit: int = 0) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.snapshot = self.context.socket(zmq.ROUTER)
        self.publisher = self.context.socket(zmq.XPUB)
        self.collector = self.context.socket(zmq.PULL)
        self.sockets = [self.snapshot, self.publisher, self.collector]
        for socket in self.sockets:
            socket.linger = 0
            socket.rcvhwm = receive_limit
            socket.rcvtimeo = int(DEADLINE_S * 1000)
        self.endpoint = f"tcp://127.0.0.1:{bind_consecutive(self.sockets, 0)}"

    def serve(self, *messages: list[bytes]) -> None:
        """Waits for the client's subscriptions and its request, and answers with these messages."""
        while self.publisher.recv() != b"\x01" + chp.HUGZ:
            pass
        identity, *request = self.snapshot.recv_multipart()
        envelope = [identity, b""] if request[0] == b"" else [identity]
        for frames in messages:
            self.snapshot.send_multipart(envelope + frames)

    def publish(self, frames: list[bytes]) -> None:
        self.publisher.send_multipart(frames)

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.context.destroy()
