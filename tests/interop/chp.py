"""The messages of RFC 12/CHP, as the Clone examples of the ZeroMQ Guide speak it.

Written from the protocol alone and sharing no code with Pollux, so that a misreading on one side shows on the other.
`Message.decode` refuses what stops an old peer; `defects` names what an old peer survives only by luck.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

ICANHAZ = b"ICANHAZ?"
KTHXBAI = b"KTHXBAI"
HUGZ = b"HUGZ"
"""A heartbeat's key is this, or this and a subtree: whoever subscribes to `HUGZ` gets both."""
STATUS = b"STATUS?"
"""Not of RFC 12: what our brokers answer to a subscription of this name; whoever follows the whole tree gets it, too."""

FRAMES = 5
KEY_MAX = 255
"""The C client cuts longer keys when it reads them."""
UUID_SIZE = 16

Properties = dict[str, str]


class ChpError(ValueError):
    """A message that stops a peer of the Guide's kind."""


@dataclass(frozen=True)
class Message:
    """The five frames. The properties stay as bytes: a server passes on even those it cannot read."""

    key: bytes
    sequence: int = 0
    uuid: bytes = b""
    properties: bytes = b""
    body: bytes = b""
    """Empty means delete."""

    @classmethod
    def decode(cls, frames: list[bytes]) -> Message:
        if len(frames) != FRAMES:
            raise ChpError(f"expected {FRAMES} frames, got {len(frames)}")
        key, sequence, uuid, properties, body = frames
        if len(sequence) != 8:
            raise ChpError(f"sequence frame of {key!r}: expected 8 bytes, got {len(sequence)}")
        return cls(key, struct.unpack("!q", sequence)[0], uuid, properties, body)

    def encode(self) -> list[bytes]:
        return [self.key, struct.pack("!q", self.sequence), self.uuid, self.properties, self.body]


def decode_properties(frame: bytes) -> Properties:
    """Keeps the lines with exactly one `=`, silently loses the others, takes the last of equal names: as the Python clients."""
    lines = frame.decode(errors="backslashreplace").split("\n")
    return dict(line.split("=") for line in lines if line.count("=") == 1)


def encode_properties(properties: Properties) -> bytes:
    return "".join(f"{name}={value}\n" for name, value in properties.items()).encode()


def defects(message: Message) -> list[str]:
    """What some old peer cuts, loses or throws on, although it can be decoded."""
    found = []
    key = message.key
    if not 1 <= len(key) <= KEY_MAX:
        found.append(f"key of {len(key)} bytes, expected 1 to {KEY_MAX}")
    if b"\0" in key:
        found.append(f"key {key!r} with a NUL, where C ends it")
    if len(message.uuid) not in (0, UUID_SIZE):
        found.append(f"uuid frame of {key!r}: expected 0 or {UUID_SIZE} bytes, got {len(message.uuid)}")
    return found + [f"properties of {key!r}: {defect}" for defect in _property_defects(message.properties)]


def _property_defects(frame: bytes) -> list[str]:
    found = []
    if b"\0" in frame:
        found.append("NUL, where C ends them")
    *lines, rest = frame.split(b"\n")
    if rest:
        found.append(f"{rest!r} does not end in a newline, C loses it")
    for line in lines:
        if line.count(b"=") != 1:
            found.append(f"{line!r} has not exactly one '=', Python loses it")
        elif line.startswith(b"="):
            found.append(f"{line!r} has an empty name")
        elif line.endswith(b"="):
            found.append(f"{line!r} has an empty value, Java throws on it")
    return found
