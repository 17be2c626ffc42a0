#!/usr/bin/env python3
"""A server of RFC 12 that behaves as those of the Guide's Models Five and Six (one server, no pair).

It is as easily stopped: a request or a change that it does not know ends it with a message and exit code 3. So a client that probes with
verbs, frames or properties of its own is caught. With --dialect it follows the Guide's Python or its C server where they differ.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
import uuid
from dataclasses import dataclass, replace

import zmq

import chp
from jsonlines import EXIT_USAGE, EXIT_VIOLATION, CommandError, Commands, Json, change_of, describe, emit, fail, text, to64

PORT_RANGE = range(10_000, 32_000)
"""Below the ports that the system gives to outgoing connections."""
PORT_ATTEMPTS = 200
REQUEST_ONE_FRAME = "one-frame"
REQUEST_REQ = "req"


@dataclass(frozen=True)
class Entry:
    message: chp.Message
    """As stored: its `ttl` is the absolute time of expiry in the server's dialect."""
    expires_at: float
    """Unix seconds."""


@dataclass
class Wedge:
    """Heartbeats go on, changes are kept from everybody: a quickly restarted server that waits for a vote."""

    requests: str
    """Meanwhile a request is answered, dropped, or frees the server."""
    swallowed: list[chp.Message]
    """Without a limit, like the pending list of the Guide's servers."""


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.python = options.dialect == "python"
        self.map: dict[bytes, Entry] = {}
        self.sequence = 0
        self.wedge: Wedge | None = None
        self.quitting = False
        self.stdin = Commands()

        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.snapshot = context.socket(zmq.ROUTER)
        self.publisher = context.socket(zmq.PUB)
        self.collector = context.socket(zmq.PULL if options.model == 5 else zmq.SUB)
        if options.model == 6:
            self.collector.subscribe(b"")
        self.sockets = [self.snapshot, self.publisher, self.collector]
        for socket in self.sockets:
            # The Guide's servers drop at 1000, also in the middle of a snapshot. Here nothing shall be lost by chance.
            socket.set_hwm(0)
            socket.linger = 0
        emit("listening", port=bind_consecutive(self.sockets, options.port))

    # The loop

    def run(self) -> None:
        poller = zmq.Poller()
        for source in (self.stdin.fd, self.snapshot, self.collector):
            poller.register(source, zmq.POLLIN)
        beat_at = time.monotonic() + self.options.heartbeat
        while not self.quitting:
            ready = dict(poller.poll(max(0, int((beat_at - time.monotonic()) * 1000) + 1)))
            if self.stdin.fd in ready:
                for command in self.stdin.read():
                    self.on_command(command)
                self.quitting |= self.stdin.ended
            if self.collector in ready:
                self.on_change(self.collector.recv_multipart())
            if self.snapshot in ready:
                self.on_request(self.snapshot.recv_multipart())
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + self.options.heartbeat
                self.expire()
                if self.options.model == 6:
                    self.publisher.send_multipart(self.mark(chp.HUGZ).encode())

    def mark(self, key: bytes, body: bytes = b"") -> chp.Message:
        """HUGZ or KTHXBAI, both with the current sequence; only the Python server gives them a uuid."""
        return chp.Message(key, self.sequence, uuid.uuid4().bytes if self.python else b"", b"", body)

    # Snapshots

    def on_request(self, frames: list[bytes]) -> None:
        identity, *request = frames
        envelope = [identity]
        if REQUEST_REQ in self.options.accept and request[:1] == [b""]:
            envelope.append(b"")
            request = request[1:]
        if REQUEST_ONE_FRAME in self.options.accept and request == [chp.ICANHAZ]:
            request = [chp.ICANHAZ, b""]
        if len(request) != 2 or request[0] != chp.ICANHAZ:
            raise chp.ChpError(f"expected the two frames of ICANHAZ?, got {request!r}")
        subtree = request[1]
        emit("request", subtree=text(subtree))
        if self.wedge and self.wedge.requests == "drop":
            return
        if self.wedge and self.wedge.requests == "free":
            self.unwedge()
        self.answer(envelope, subtree)

    def answer(self, envelope: list[bytes], subtree: bytes) -> None:
        messages = [entry.message for key, entry in self.map.items() if key.startswith(subtree)]
        messages.append(self.mark(chp.KTHXBAI, subtree if self.python else b""))
        if len(envelope) > 1:
            # REQ takes one message only.
            self.snapshot.send_multipart(envelope + [frame for message in messages for frame in message.encode()])
            return
        for message in messages:
            self.snapshot.send_multipart(envelope + message.encode())

    # Changes

    def on_change(self, frames: list[bytes]) -> None:
        change = chp.Message.decode(frames)
        if found := chp.defects(change):
            raise chp.ChpError(f"KVSET: {'; '.join(found)}")
        if change.key.startswith(chp.HUGZ) or change.key in (chp.KTHXBAI, chp.ICANHAZ):
            raise chp.ChpError(f"KVSET of the reserved key {change.key!r}")
        if self.wedge:
            self.wedge.swallowed.append(change)
            emit("swallowed", **describe(change))
        else:
            self.apply(change)

    def apply(self, change: chp.Message) -> None:
        stored, expires_at = self.with_absolute_ttl(change)
        self.publish(change)
        if change.body:
            self.map[change.key] = Entry(replace(stored, sequence=self.sequence), expires_at)
        else:
            self.map.pop(change.key, None)

    def publish(self, message: chp.Message) -> None:
        self.sequence += 1
        message = replace(message, sequence=self.sequence)
        self.publisher.send_multipart(message.encode())
        emit("change", **describe(message))

    def with_absolute_ttl(self, change: chp.Message) -> tuple[chp.Message, float]:
        """The change as it is stored, and when it expires. Published it keeps the relative one."""
        properties = chp.decode_properties(change.properties)
        ttl = self.parse_ttl(properties.get("ttl", "0"))
        if not ttl:
            return change, float("inf")
        expires_at = time.time() + ttl
        properties["ttl"] = f"{expires_at:f}" if self.python else str(int(expires_at * 1000))
        return replace(change, properties=chp.encode_properties(properties)), expires_at

    def parse_ttl(self, ttl: str) -> float:
        """Seconds; Python takes a float, C as much of an integer as there is. Nonsense loses the change in the one, the ttl in the other."""
        try:
            seconds = float(ttl)
        except ValueError as error:
            raise chp.ChpError(f"KVSET with ttl={ttl}") from error
        if self.python:
            return seconds
        integer = re.match(r"[+-]?\d+", ttl)
        return int(integer[0]) if integer else 0

    def expire(self) -> None:
        now = time.time()
        for key in [key for key, entry in self.map.items() if entry.expires_at <= now]:
            # Under the uuid of the change that set it, with the absolute ttl: as the Guide's servers do.
            self.publish(replace(self.map.pop(key).message, body=b""))

    def unwedge(self) -> None:
        if self.wedge:
            swallowed, self.wedge = self.wedge.swallowed, None
            for change in swallowed:
                self.apply(change)

    # The test's side

    def on_command(self, command: Json) -> None:
        match command:
            case {"dump": True}:
                values = {text(key): to64(entry.message.body) for key, entry in self.map.items()}
                emit("dump", sequence=self.sequence, map=values)
            case {"set": fields}:
                try:
                    self.apply(change_of(fields, uuid.uuid4().bytes))
                except (KeyError, ValueError, TypeError, AttributeError) as error:
                    raise CommandError(f"{command}: {error!r}") from error
            case {"restart": True}:
                self.map.clear()
                self.sequence = 0
                emit("restarted")
            case {"stop_publishing": True}:
                requests = command.get("requests", "answer")
                if requests not in ("answer", "drop", "free"):
                    raise CommandError(f"{command}: requests is answer, drop or free")
                self.wedge = Wedge(requests, [])
                emit("stopped")
            case {"stop_publishing": False}:
                self.wedge = None
                emit("resumed")
            case {"quit": True}:
                self.quitting = True
            case _:
                raise CommandError(f"unknown command {command}")


def bind_consecutive(sockets: list[zmq.Socket[bytes]], port: int) -> int:
    """Binds the sockets to ports that follow one another, from `port` or, with 0, from some free one, which it returns."""
    attempts = [port] if port else random.sample(PORT_RANGE, PORT_ATTEMPTS)
    for base in attempts:
        bound: list[tuple[zmq.Socket[bytes], str]] = []
        try:
            for offset, socket in enumerate(sockets):
                endpoint = f"tcp://127.0.0.1:{base + offset}"
                socket.bind(endpoint)
                bound.append((socket, endpoint))
            return base
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE:
                raise
            for socket, endpoint in bound:
                socket.unbind(endpoint)
    raise CommandError(f"no {len(sockets)} free ports in a row from {attempts[0]}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="RFC 12 server driven by JSON lines, see README.md")
    parser.add_argument("--model", type=int, choices=(5, 6), default=6, help="5: PULL and no HUGZ; 6: SUB and HUGZ")
    parser.add_argument("--port", type=int, default=0, help="P; a free one unless given")
    parser.add_argument(
        "--heartbeat", type=float, default=1.0, metavar="SECONDS", help="between HUGZ, and between looks for what has expired"
    )
    parser.add_argument(
        "--dialect", "--ttl-dialect", choices=("python", "c"), default="python", help="follow the Guide's Python or C server"
    )
    parser.add_argument(
        "--accept",
        action="append",
        default=[],
        choices=(REQUEST_ONE_FRAME, REQUEST_REQ),
        help="requests that the Guide's server of this model does not take",
    )
    return parser.parse_args()


def main() -> int:
    try:
        server = Server(parse_arguments())
        server.run()
    except CommandError as error:
        return fail(EXIT_USAGE, error)
    except chp.ChpError as error:
        return fail(EXIT_VIOLATION, error)
    for socket in server.sockets:
        socket.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
