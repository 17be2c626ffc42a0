#!/usr/bin/env python3
"""A client of RFC 12 that behaves as those of the Guide's Models Five and Six, and says when one of them would be in trouble.

It subscribes to the subtree, then to HUGZ; asks ICANHAZ? at once; takes KVSYNCs until KTHXBAI; then applies each change whose sequence
is above its own. After some silence it turns to the next server; each is asked at most twice without an answer; the map is never cleared.
"""

from __future__ import annotations

import argparse
import enum
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable
from urllib.parse import urlsplit

import zmq

import chp
from jsonlines import EXIT_USAGE, EXIT_VIOLATION, CommandError, Commands, Json, change_of, describe, emit, fail, from64, key_of, text, to64

SERVERS_MAX = 2
REQUESTS_MAX = 2
WAIT_SECONDS = 10.0
LINGER_MS = 2000
DRAIN = 1000
"""Messages read from one socket before the others have their turn."""


class State(enum.Enum):
    INITIAL = enum.auto()
    SYNCING = enum.auto()
    ACTIVE = enum.auto()


class Server:
    """One server as the client sees it: a socket for its snapshot, one for its updates."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, options: argparse.Namespace) -> None:
        self.endpoint = endpoint
        self.requests = 0
        """Requests since the last sign of life, at most REQUESTS_MAX."""
        self.unanswered = 0
        self.highest = 0
        """The highest sequence seen on the wire since the last snapshot; what follows on this connection must be higher."""
        self.synced: list[chp.Message] = []
        self.snapshot = context.socket(zmq.REQ if options.req else zmq.DEALER)
        if options.req:
            self.snapshot.setsockopt(zmq.REQ_RELAXED, 1)
        self.updates = context.socket(zmq.SUB)
        for socket, offset in (self.snapshot, 0), (self.updates, 1):
            # The Guide's clients drop at 1000; here a hole shall be the server's fault.
            socket.set_hwm(0)
            socket.linger = 0
            socket.connect(at_offset(endpoint, offset))
        self.updates.subscribe(options.subtree.encode())
        self.updates.subscribe(chp.HUGZ)


class Client:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.subtree: bytes = options.subtree.encode()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.servers = [Server(self.context, endpoint, options) for endpoint in options.connect]
        self.current = 0
        self.state = State.INITIAL
        self.silent_at = float("inf")
        self.sequence = 0
        self.live = False
        """A heartbeat has come since the snapshot: the subscriptions work."""
        self.map: dict[bytes, bytes] = {}
        self.awaited: dict[bytes, chp.Message] = {}
        """Own changes that the server has not published yet, by uuid."""

        # XPUB is PUB that tells of the server's subscription: before it, changes would be dropped unseen.
        self.collector = self.context.socket(zmq.PUSH if options.collector == "pull" else zmq.XPUB)
        self.collector.set_hwm(0)
        self.collector.linger = LINGER_MS
        if options.collector == "sub":
            # Each server's subscription is told, not only the first.
            self.collector.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.writable = options.collector == "pull"
        self.subscribed = 0
        """Servers that have subscribed to the changes."""
        for endpoint in options.connect:
            self.collector.connect(at_offset(endpoint, 2))

        self.stdin = Commands()
        self.commands: deque[Json] = deque()
        self.command_expires: float | None = None
        self.quitting = False

    @property
    def server(self) -> Server:
        return self.servers[self.current]

    def close(self) -> None:
        """Waits for the last changes to leave, LINGER_MS at most."""
        for server in self.servers:
            server.snapshot.close()
            server.updates.close()
        self.collector.close()
        self.context.term()

    # The loop

    def run(self) -> None:
        while True:
            self.run_commands()
            if self.quitting:
                return
            if self.state is State.INITIAL:
                self.ask()
            self.poll()
            if time.monotonic() >= self.silent_at:
                self.next_server()

    def poll(self) -> None:
        server = self.server
        poller = zmq.Poller()
        if not self.stdin.ended:
            poller.register(self.stdin.fd, zmq.POLLIN)
        if self.options.collector == "sub" and self.subscribed < len(self.servers):
            poller.register(self.collector, zmq.POLLIN)
        if self.state is State.ACTIVE:
            poller.register(server.updates, zmq.POLLIN)
        if self.state is State.SYNCING or not server.unanswered:
            poller.register(server.snapshot, zmq.POLLIN)
        ready = dict(poller.poll(self.poll_timeout_ms()))

        if self.stdin.fd in ready:
            self.commands.extend(self.stdin.read())
        if self.collector in ready:
            self.on_subscription(self.collector.recv())
        if server.snapshot in ready:
            self.drain(server.snapshot, self.on_answer)
        # After the answer: what it says the server has reached decides which of these are news.
        if server.updates in ready:
            self.drain(server.updates, self.on_published)

    def poll_timeout_ms(self) -> int | None:
        until = min(self.silent_at, self.command_expires or float("inf"))
        if until == float("inf"):
            return None
        return max(0, int((until - time.monotonic()) * 1000) + 1)

    def drain(self, socket: zmq.Socket[bytes], handler: Callable[[list[bytes]], None]) -> None:
        state = self.state
        for _ in range(DRAIN):
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            handler(frames)
            # A snapshot that has ended leaves what follows it to the next turn, as in the Guide.
            if self.state is not state:
                return

    def violation(self, reason: str) -> None:
        """An old client may not survive this: the end, or with --lenient an event."""
        reason = f"{self.server.endpoint}: {reason}"
        if not self.options.lenient:
            raise chp.ChpError(reason)
        emit("violation", reason=reason)

    # The server's side

    def ask(self) -> None:
        server = self.server
        if server.requests < REQUESTS_MAX:
            request = [chp.ICANHAZ] if self.options.one_frame else [chp.ICANHAZ, self.subtree]
            server.snapshot.send_multipart(request)
            server.requests += 1
            server.unanswered += 1
        self.state = State.SYNCING
        self.heard()

    def heard(self) -> None:
        if self.options.silence:
            self.silent_at = time.monotonic() + self.options.silence

    def next_server(self) -> None:
        emit("silence", server=self.server.endpoint)
        self.server.synced.clear()
        self.current = (self.current + 1) % len(self.servers)
        self.state = State.INITIAL
        self.heard()

    def on_subscription(self, frame: bytes) -> None:
        if frame == b"\x01":
            self.writable = True
            self.subscribed += 1
            emit("writable")

    def on_answer(self, frames: list[bytes]) -> None:
        """KVSYNC or KTHXBAI; over REQ all of them in one message."""
        if self.state is State.ACTIVE:
            self.violation(f"a message after KTHXBAI, the next snapshot would begin with it: {frames[:1]!r}")
            return
        self.heard()
        self.server.requests = 0
        if not self.options.req:
            self.on_snapshot(frames)
            return
        ended = False
        for start in range(0, len(frames), chp.FRAMES):
            if ended:
                self.violation(f"{len(frames) - start} frames after KTHXBAI in one answer")
                return
            ended = self.on_snapshot(frames[start : start + chp.FRAMES])
        if not ended:
            self.violation(f"an answer of {len(frames)} frames without KTHXBAI")

    def on_snapshot(self, frames: list[bytes]) -> bool:
        """True at the end of the snapshot."""
        message = self.decode(frames)
        if message is None:
            return False
        if message.key == chp.KTHXBAI:
            self.on_end_of_snapshot(message)
            return True
        if message.sequence <= 0:
            self.violation(f"KVSYNC of {message.key!r} with sequence {message.sequence}")
        if not message.key.startswith(self.subtree):
            self.violation(f"KVSYNC of {message.key!r}, asked for {self.subtree!r}")
        self.server.synced.append(message)
        self.store(message)
        if not self.options.quiet:
            emit("kvsync", **describe(message))
        return False

    def on_end_of_snapshot(self, end: chp.Message) -> None:
        server = self.server
        properties = chp.decode_properties(end.properties)
        count = len(server.synced)
        newest = max((message.sequence for message in server.synced), default=0)
        if end.sequence < newest:
            self.violation(f"KTHXBAI with sequence {end.sequence} after a KVSYNC with {newest}")
        # Asked twice, the first answer is allowed to be old.
        if end.sequence < server.highest and server.unanswered == 1:
            self.violation(f"KTHXBAI with sequence {end.sequence}, published was {server.highest}")
        if properties.get("count", str(count)) != str(count):
            self.violation(f"KTHXBAI with count={properties['count']} after {count} KVSYNCs")
        server.synced.clear()
        server.unanswered -= 1
        server.highest = 0
        self.sequence = end.sequence
        self.state = State.ACTIVE
        self.live = False
        emit("synced", server=server.endpoint, sequence=end.sequence, count=count, subtree=text(end.body), properties=properties)

    def on_published(self, frames: list[bytes]) -> None:
        """KVPUB or HUGZ."""
        self.heard()
        message = self.decode(frames)
        if message is None:
            return
        if message.key.startswith(chp.HUGZ):
            self.on_heartbeat(message)
        elif message.key == chp.STATUS:
            self.on_status(message)
        else:
            self.on_change(message)

    def on_heartbeat(self, message: chp.Message) -> None:
        server = self.server
        if message.body:
            self.violation(f"{message.key!r} with a body of {len(message.body)} bytes, old clients take it for a key")
        # That of a subtree tells what was last published there: it may be lower.
        if message.key == chp.HUGZ:
            if message.sequence < server.highest:
                self.violation(f"HUGZ with sequence {message.sequence} after {server.highest}")
            server.highest = message.sequence
        # Old clients take a heartbeat for a change and move on with it.
        self.sequence = max(self.sequence, message.sequence)
        if not self.live:
            self.live = True
            emit("live", sequence=message.sequence)
        if not self.options.quiet:
            emit("hugz", **describe(message))

    def on_status(self, message: chp.Message) -> None:
        """To old clients the deletion of a key that they do not have, and as a rule one of which they know already."""
        if message.body:
            self.violation(f"{message.key!r} with a body of {len(message.body)} bytes, old clients take it for a key")
        if message.sequence < self.server.highest:
            self.violation(f"{message.key!r} with sequence {message.sequence} after {self.server.highest}")
        self.sequence = max(self.sequence, message.sequence)

    def on_change(self, message: chp.Message) -> None:
        server = self.server
        if message.key in (chp.KTHXBAI, chp.ICANHAZ):
            self.violation(f"KVPUB of the reserved key {message.key!r}")
        if message.sequence <= 0:
            self.violation(f"KVPUB of {message.key!r} with sequence {message.sequence}")
        elif message.sequence <= server.highest:
            self.violation(f"KVPUB of {message.key!r} with sequence {message.sequence} after {server.highest}, old clients drop it")
        server.highest = max(server.highest, message.sequence)
        self.check_echo(message)
        if message.sequence <= self.sequence:
            return
        self.sequence = message.sequence
        self.store(message)
        if not self.options.quiet:
            emit("update", **describe(message))

    def check_echo(self, message: chp.Message) -> None:
        """An own change comes back as it went: same key, value and properties in order; a server may round `ttl`, and add it in milliseconds."""
        mine = self.awaited.pop(message.uuid, None)
        if mine is None:
            return
        for name, sent, got in (
            ("key", mine.key, message.key),
            ("value", mine.body, message.body),
            ("properties", without_ttl(mine), without_ttl(message)),
        ):
            if sent != got:
                self.violation(f"own change of {mine.key!r} came back with another {name}: sent {sent!r}, got {got!r}")

    def decode(self, frames: list[bytes]) -> chp.Message | None:
        try:
            message = chp.Message.decode(frames)
        except chp.ChpError as error:
            self.violation(str(error))
            return None
        for defect in chp.defects(message):
            self.violation(defect)
        return message

    def store(self, message: chp.Message) -> None:
        if message.body:
            self.map[message.key] = message.body
        else:
            self.map.pop(message.key, None)

    # The test's side

    def run_commands(self) -> None:
        """In order: one that has to wait holds up those behind it, until its time is over."""
        while self.commands and not self.quitting:
            command = self.commands[0]
            if not self.done(command):
                now = time.monotonic()
                self.command_expires = self.command_expires or now + seconds_of(command)
                if now < self.command_expires:
                    return
                emit("timeout", command=command)
            self.command_expires = None
            self.commands.popleft()
        self.quitting |= self.stdin.ended

    def done(self, command: Json) -> bool:
        """Executes the command, or says that it has to wait."""
        try:
            match command:
                case {"set": fields}:
                    return self.writable and self.set(fields)
                case {"dump": True}:
                    emit("dump", sequence=self.sequence, map={text(key): to64(value) for key, value in self.map.items()})
                    return True
                case {"wait": {"sequence": int(sequence)}}:
                    return self.state is State.ACTIVE and self.sequence >= sequence and waited(self.sequence, command)
                case {"wait_key": fields}:
                    wanted = None if fields.get("absent") else from64(fields["value64"])
                    return self.map.get(key_of(fields)) == wanted and waited(self.sequence, command)
                case {"quit": True}:
                    self.quitting = True
                    return True
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise CommandError(f"{command}: {error!r}") from error
        raise CommandError(f"unknown command {command}")

    def set(self, fields: Json) -> bool:
        message = change_of(fields, uuid.uuid4().bytes)
        if message.uuid and message.key.startswith(self.subtree):
            self.awaited[message.uuid] = message
        self.collector.send_multipart(message.encode())
        emit("set", key=text(message.key), uuid=message.uuid.hex())
        return True


def waited(sequence: int, command: Json) -> bool:
    emit("waited", sequence=sequence, command=command)
    return True


def seconds_of(command: Json) -> float:
    fields = next(iter(command.values()))
    return float(fields.get("seconds", WAIT_SECONDS)) if isinstance(fields, dict) else WAIT_SECONDS


def without_ttl(message: chp.Message) -> list[bytes]:
    return [line for line in message.properties.split(b"\n") if not line.startswith((b"ttl=", b"ttlms="))]


def at_offset(endpoint: str, offset: int) -> str:
    url = urlsplit(endpoint)
    if url.port is None:
        raise CommandError(f"{endpoint}: expected tcp://HOST:PORT")
    return f"tcp://{url.hostname}:{url.port + offset}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="RFC 12 client driven by JSON lines, see README.md")
    parser.add_argument("--connect", action="append", required=True, metavar="tcp://HOST:P", help="snapshot port of a server; up to two")
    parser.add_argument("--subtree", default="", help="for example /client/; the whole tree unless given")
    parser.add_argument("--collector", choices=("pull", "sub"), default="pull", help="what the server binds on P+2: send by PUSH or by PUB")
    parser.add_argument("--silence", type=float, default=5.0, metavar="SECONDS", help="then the next server; 0: never (Model Five)")
    parser.add_argument("--one-frame", action="store_true", help="ask ICANHAZ? without a subtree frame")
    parser.add_argument("--req", action="store_true", help="ask by REQ instead of DEALER")
    parser.add_argument("--quiet", action="store_true", help="no events kvsync, update and hugz")
    parser.add_argument("--lenient", action="store_true", help="a violation is an event instead of the end")
    options = parser.parse_args()
    if len(options.connect) > SERVERS_MAX:
        parser.error(f"at most {SERVERS_MAX} servers")
    if options.one_frame and options.subtree:
        parser.error("a request of one frame has no subtree")
    return options


def main() -> int:
    try:
        client = Client(parse_arguments())
        client.run()
    except CommandError as error:
        return fail(EXIT_USAGE, error)
    except chp.ChpError as error:
        return fail(EXIT_VIOLATION, error)
    client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
