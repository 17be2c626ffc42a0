"""Commands as JSON lines on stdin, events as JSON lines on stdout: how a test drives these programs."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import chp

Json = dict[str, Any]

EXIT_USAGE = 2
EXIT_VIOLATION = 3


class CommandError(ValueError):
    """A command that the program does not know or cannot read."""


class Commands:
    """The lines that stdin holds, read without blocking once a poll says that the descriptor is readable."""

    def __init__(self) -> None:
        self.fd = sys.stdin.fileno()
        self.ended = False
        self._partial = b""

    def read(self) -> Iterator[Json]:
        data = os.read(self.fd, 65536)
        self.ended = not data
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in filter(None, lines):
            try:
                command = json.loads(line)
            except ValueError as error:
                raise CommandError(f"not JSON: {line!r}: {error}") from error
            if not isinstance(command, dict):
                raise CommandError(f"not an object: {line!r}")
            yield command


def emit(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def fail(code: int, error: Exception) -> int:
    print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr, flush=True)
    return code


def text(data: bytes) -> str:
    """Keys and subtrees in events: UTF-8, other bytes as `\\xff`."""
    return data.decode(errors="backslashreplace")


def to64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def from64(data: str) -> bytes:
    return base64.b64decode(data, validate=True)


def describe(message: chp.Message) -> Json:
    """The fields of an event that tells of a message."""
    return {
        "key": text(message.key),
        "sequence": message.sequence,
        "uuid": message.uuid.hex(),
        "properties": chp.decode_properties(message.properties),
        "value64": to64(message.body),
    }


def key_of(fields: Json) -> bytes:
    return from64(fields["key64"]) if "key64" in fields else fields["key"].encode()


def change_of(fields: Json, uuid: bytes) -> chp.Message:
    """The KVSET that `{"set": fields}` asks for; `uuid` is used unless the command gives one (empty: none)."""
    properties = dict(fields.get("properties", {}))
    if "ttl" in fields:
        # Text goes out as it is, so that a test can send nonsense.
        properties["ttl"] = str(fields["ttl"])
    if "uuid" in fields:
        uuid = bytes.fromhex(fields["uuid"])
    body = from64(fields.get("value64", ""))
    return chp.Message(key_of(fields), 0, uuid, chp.encode_properties(properties), body)
