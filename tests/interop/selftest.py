#!/usr/bin/env python3
"""Runs client.py against server.py, and both against what they must refuse. Exit code 0 only if all is right."""

from __future__ import annotations

import os
import struct
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import zmq

import chp
from jsonlines import EXIT_VIOLATION, to64
from programs import FakeServer, Program

BEAT = ("--heartbeat", "0.1")
UUID = bytes(range(16))


def model(number: int, *arguments: str) -> Program:
    return Program("server.py", "--model", str(number), *BEAT, *arguments)


def client_of(server: Program, *arguments: str) -> Program:
    return Program("client.py", "--connect", endpoint_of(server), *arguments)


def endpoint_of(server: Program) -> str:
    return f"tcp://127.0.0.1:{server.expect('listening')['port']}"


# Client and server


def model_five() -> None:
    """PUSH to PULL, no heartbeats; a late client has it all from the snapshot."""
    with model(5) as server:
        arguments = ("--connect", endpoint_of(server), "--silence", "0")
        with Program("client.py", *arguments) as client:
            client.expect("synced", sequence=0, count=0)
            client.set("/a", "1", uuid="")
            client.set("/b", "2", properties={"x": "y"})
            client.set("/a", "3")
            client.set("/b", "")
            server.expect("change", key="/b", sequence=2, properties={"x": "y"})
            server.expect("change", key="/b", sequence=4, value64="")
            assert server.dump() == {"/a": to64(b"3")}
        with Program("client.py", *arguments) as late:
            late.expect("kvsync", key="/a", sequence=3)
            late.expect("synced", sequence=4, count=1)
            # Without heartbeats only a change shows that the subscription works.
            until_changes_come(server, late)
            server.set("/short", "lived", ttl=0.2)
            late.expect("update", key="/short", value64=to64(b"lived"))
            late.expect("update", without="hugz", key="/short", value64="")
            assert late.dump() == server.dump()
            late.send(quit=True)
            late.ends(0)


def until_changes_come(server: Program, client: Program) -> None:
    for _ in range(100):
        server.set("/come", "yes")
        client.send(wait_key={"key": "/come", "value64": to64(b"yes"), "seconds": 0.1})
        if client.expect("waited", "timeout")["event"] == "waited":
            return
    raise AssertionError(f"{client.name}: no change comes")


def model_six_python() -> None:
    model_six("python", lambda ttl: "." in ttl and 1e9 < float(ttl) < 1e11)


def model_six_c() -> None:
    model_six("c", lambda ttl: int(ttl) > 1e12)


def model_six(dialect: str, is_absolute: Callable[[str], bool]) -> None:
    """PUB to SUB, heartbeats; two clients see each other's changes, expiry reaches both, the snapshot has the absolute ttl."""
    with model(6, "--ttl-dialect", dialect) as server:
        arguments = ("--connect", endpoint_of(server), "--collector", "sub")
        with Program("client.py", *arguments) as writer, Program("client.py", *arguments) as reader:
            writer.expect("live", sequence=0)
            reader.expect("live", sequence=0)
            writer.set("/keep", "kept", ttl=0)
            writer.set("/long", "lived", ttl=60)
            writer.set("/short", "lived", ttl=1)
            uuid = writer.expect("set", key="/short")["uuid"]
            for client in writer, reader:
                client.expect("update", key="/short", uuid=uuid, properties={"ttl": "1"}, sequence=3)
                expired = client.expect("update", key="/short", uuid=uuid, value64="", sequence=4)
                assert is_absolute(expired["properties"]["ttl"]), expired
            assert reader.dump() == writer.dump() == server.dump() == {"/keep": to64(b"kept"), "/long": to64(b"lived")}
        with Program("client.py", *arguments) as late:
            entry = late.expect("kvsync", key="/long", sequence=2)
            assert is_absolute(entry["properties"]["ttl"]), entry
            assert late.expect("synced", sequence=4, count=2)["subtree"] == ""
            assert len(late.expect("hugz", sequence=4, key="HUGZ")["uuid"]) == (32 if dialect == "python" else 0)


def subtree() -> None:
    """A client of a subtree gets nothing else, and the sequence runs on over what it does not get."""
    with model(6) as server:
        endpoint = endpoint_of(server)
        server.set("/a/1", "x")
        server.set("/b/1", "x")
        with Program("client.py", "--connect", endpoint, "--subtree", "/a/", "--collector", "sub") as client:
            client.expect("synced", count=1, sequence=2, subtree="/a/")
            client.expect("live")
            client.set("/b/2", "x")
            client.set("/a/2", "x", uuid="", properties={"n": "v"})
            client.expect("update", without="timeout", key="/a/2", sequence=4, uuid="", properties={"n": "v"})
            client.send(wait_key={"key": "/b/2", "absent": True})
            client.expect("waited", sequence=4)
            client.send(wait_key={"key": "/b/2", "value64": to64(b"x"), "seconds": 0.05})
            client.expect("timeout")
            assert client.dump() == {"/a/1": to64(b"x"), "/a/2": to64(b"x")}


def requests() -> None:
    """One frame, REQ, and both, from an empty and from a full server; commands in one go, the end of stdin ends the client."""
    with model(6, "--accept", "one-frame", "--accept", "req") as server:
        endpoint = endpoint_of(server)
        for count in 0, 500:
            for n in range(count):
                server.set(f"/{n}", str(n))
            for form in ("--one-frame",), ("--req",), ("--one-frame", "--req"):
                with Program("client.py", "--connect", endpoint, "--quiet", *form) as client:
                    client.send(wait={"sequence": count})
                    client.send(dump=True)
                    assert client.process.stdin
                    client.process.stdin.close()
                    client.expect("synced", count=count, sequence=count)
                    assert len(client.expect("dump", without="kvsync")["map"]) == count
                    client.ends(0)


def restart() -> None:
    """A server that starts again from 0: an old client drops its changes without a word, this one says so."""
    with model(6) as server:
        endpoint = endpoint_of(server)
        arguments = ("--connect", endpoint, "--collector", "sub")
        with Program("client.py", *arguments) as strict, Program("client.py", *arguments, "--lenient") as old:
            for client in strict, old:
                client.expect("live")
            server.set("/a", "1")
            server.set("/b", "2")
            for client in strict, old:
                client.expect("update", key="/b")
            server.send(restart=True)
            server.set("/c", "3")
            strict.ends(EXIT_VIOLATION, "after 2")
            old.expect("violation")
            old.expect("hugz", sequence=1)
            assert old.dump() == {"/a": to64(b"1"), "/b": to64(b"2")}
            assert server.dump() == {"/c": to64(b"3")}


def silence() -> None:
    """A server that is gone: the next one, which is the same again, is asked; from its answer on, its lower sequence counts."""
    with model(6) as first:
        endpoint = endpoint_of(first)
        with Program("client.py", "--connect", endpoint, "--collector", "sub", "--silence", "0.4", "--lenient") as client:
            client.expect("live")
            for n in range(5):
                client.set(f"/{n}", "gone")
            client.expect("update", key="/4", sequence=5)
            first.send(quit=True)
            first.ends(0)
            client.expect("silence", server=endpoint)
            with model(6, "--port", endpoint.rsplit(":", 1)[1]) as second:
                second.set("/back", "again")
                client.expect("synced", count=1, sequence=1)
                client.expect("live", without="violation")
                second.set("/back", "")
                client.expect("update", without="violation", key="/back", value64="", sequence=2)


def two_requests() -> None:
    """A server that never answers is asked twice, and then never again."""
    with FakeServer() as server, Program("client.py", "--connect", server.endpoint, "--silence", "0.1") as client:
        for _ in range(5):
            client.expect("silence")
        for _ in range(2):
            assert server.snapshot.recv_multipart()[1:] == [chp.ICANHAZ, b""]
        assert not server.snapshot.poll(0), "a third request"


def set_and_quit() -> None:
    """Changes sent from the first moment to the last all arrive, by PUSH and by PUB."""
    for number, collector in (5, "pull"), (6, "sub"):
        with model(number) as server, client_of(server, "--collector", collector) as client:
            for n in range(200):
                client.set(f"/{n}", "x")
            client.send(quit=True)
            client.ends(0)
            server.expect("change", key="/199", sequence=200)
    # More than the system buffers for a server that does not read yet.
    with FakeServer(receive_limit=1) as slow, Program("client.py", "--connect", slow.endpoint) as client:
        for n in range(100):
            client.set(f"/{n}", "x" * 200_000)
        client.expect("set", key="/99")
        client.send(quit=True)
        for n in range(100):
            assert slow.collector.recv_multipart()[0] == f"/{n}".encode()
        client.ends(0)


def failover() -> None:
    """Two servers: after the first has gone the client asks the second, and sends its changes to both."""
    with model(6) as first, model(6) as second:
        endpoints = [endpoint_of(first), endpoint_of(second)]
        second.set("/second", "here")
        both = [argument for endpoint in endpoints for argument in ("--connect", endpoint)]
        with Program("client.py", *both, "--collector", "sub", "--silence", "0.4") as client:
            client.expect("synced", server=endpoints[0], count=0)
            first.send(quit=True)
            client.expect("silence", server=endpoints[0])
            client.expect("synced", server=endpoints[1], count=1)
            client.expect("live")
            client.set("/a", "1")
            client.expect("update", key="/a", sequence=2)


def wedge() -> None:
    """Heartbeats without changes; requests answered, dropped, or freeing the server with all that it has swallowed."""
    with model(6) as server:
        endpoint = endpoint_of(server)
        arguments = ("--connect", endpoint, "--collector", "sub")
        with Program("client.py", *arguments) as client:
            client.expect("live")
            server.send(stop_publishing=True, requests="free")
            server.expect("stopped")
            client.set("/a", "1")
            server.expect("swallowed", key="/a")
            client.expect("hugz", without="update")
            client.expect("hugz", without="update", sequence=0)
            with Program("client.py", *arguments) as voter:
                voter.expect("synced", sequence=1)
            client.expect("update", key="/a", sequence=1)
            server.send(stop_publishing=True, requests="drop")
            server.expect("stopped")
            with Program("client.py", *arguments, "--silence", "0.3") as unanswered:
                server.expect("request")
                unanswered.expect("silence", without="synced")
            server.send(stop_publishing=False)
            server.expect("resumed")
            client.set("/a", "2")
            client.expect("update", key="/a", sequence=2)


# What the server refuses


def strict_server() -> None:
    good = [b"/k", bytes(8), UUID, b"ttl=1\n", b"v"]
    asked = "expected the two frames"
    cases: list[tuple[int, int, list[bytes], str]] = [
        (0, zmq.DEALER, [chp.ICANHAZ], asked),
        (0, zmq.REQ, [chp.ICANHAZ, b""], asked),
        (0, zmq.DEALER, [chp.ICANHAZ, b"", b"since=1\n"], asked),
        (0, zmq.DEALER, [b"STATUS?", b""], asked),
        (2, zmq.PUSH, good[:4], "expected 5 frames, got 4"),
        (2, zmq.PUSH, good + [b""], "expected 5 frames, got 6"),
        (2, zmq.PUSH, [b"k" * 256] + good[1:], "key of 256 bytes"),
        (2, zmq.PUSH, [b"KTHXBAI"] + good[1:], "reserved"),
        (2, zmq.PUSH, [b"/k", b"0"] + good[2:], "expected 8 bytes, got 1"),
        (2, zmq.PUSH, good[:2] + [b"12345"] + good[3:], "expected 0 or 16 bytes, got 5"),
        (2, zmq.PUSH, good[:3] + [b"x=y=z\n", b"v"], "exactly one"),
        (2, zmq.PUSH, good[:3] + [b"ttl=soon\n", b"v"], "ttl=soon"),
    ]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    for offset, kind, frames, reason in cases:
        with model(5) as server:
            socket = context.socket(kind)
            socket.linger = 0
            socket.connect(f"tcp://127.0.0.1:{server.expect('listening')['port'] + offset}")
            socket.send_multipart(frames)
            server.ends(EXIT_VIOLATION, reason)
            socket.close()
    context.term()


# What the client refuses


def message(key: str, sequence: int, properties: bytes = b"", body: bytes = b"v", uuid: bytes = b"") -> list[bytes]:
    return [key.encode(), struct.pack("!q", sequence), uuid, properties, body]


def end(sequence: int, properties: bytes = b"") -> list[bytes]:
    return message("KTHXBAI", sequence, properties, b"")


def what_an_old_client_takes() -> None:
    """Everything that the protocol adds without an old client noticing."""
    with FakeServer() as server, Program("client.py", "--connect", server.endpoint, "--subtree", "/a/") as client:
        epoch = 3 << 40
        more = b"chp=2\nepoch=3\nnode=n1\nrole=active\ncollector=pull\nhb=1000\nstable=3\n"
        changed_meanwhile = [message("/a/1", epoch + 5, b"ttl=3\n"), message("/a/2", epoch + 6), message("/a/1", epoch + 7, body=b"")]
        server.serve(*changed_meanwhile, end(epoch + 7, more + b"count=3\nmode=full\n"))
        client.expect("synced", count=3, sequence=epoch + 7)
        server.publish(message("/a/1", epoch + 6))
        server.publish(message("HUGZ", epoch + 9, more, b"", UUID))
        server.publish(message("HUGZ/a/", epoch + 7, more, b"", UUID))
        assert client.expect("hugz")["properties"]["chp"] == "2"
        client.expect("hugz", key="HUGZ/a/", sequence=epoch + 7)
        client.send(wait={"sequence": epoch + 9})
        client.expect("waited", sequence=epoch + 9)
        server.publish(message("/a/3", epoch + 20, b"ttl=1\nx=y\n", uuid=UUID))
        client.expect("update", key="/a/3", sequence=epoch + 20)
        client.set("/a/3", "w", ttl=1.5, properties={"z": "1", "a": "2"}, uuid=UUID.hex())
        sent = server.collector.recv_multipart()
        assert sent == [b"/a/3", bytes(8), UUID, b"z=1\na=2\nttl=1.5\n", b"w"], sent
        server.publish(message("/a/3", epoch + 21, b"ttl=2\nz=1\na=2\n", b"w", UUID))
        client.expect("update", key="/a/3", sequence=epoch + 21)
        server.publish(message("/a/3", epoch + 22, b"why=expired\n", b"", UUID))
        client.expect("update", key="/a/3", value64="")
        assert client.dump() == {"/a/2": to64(b"v")}
        client.send(quit=True)
        client.ends(0)


def strict_updates() -> None:
    """Each of these ends a strict client. One lenient client takes them all and names them."""
    cases: list[tuple[list[bytes], str]] = [
        (message("/k", 2)[:4], "expected 5 frames, got 4"),
        (message("/k", 2) + [b""], "expected 5 frames, got 6"),
        ([b"/k", bytes(7), b"", b"", b"v"], "expected 8 bytes, got 7"),
        (message("/k", 0), "with sequence 0"),
        (message("/k", -1), "with sequence -1"),
        (message("/k", 5), ""),
        (message("/k", 5), "with sequence 5 after 5"),
        (message("/k", 4), "with sequence 4 after 5"),
        (message("HUGZ", 9, body=b""), ""),
        (message("/k", 9), "with sequence 9 after 9"),
        (message("HUGZ", 8, body=b""), "HUGZ with sequence 8 after 9"),
        (message("HUGZ", 10), "with a body"),
        (message("HUGZ/k/", 10), "with a body"),
        (message("/k", 11, b"name\n"), "exactly one '='"),
        (message("/k", 12, b"a=b=c\n"), "exactly one '='"),
        (message("/k", 13, b"a=b\nname=\n"), "empty value"),
        (message("/k", 14, b"=value\n"), "empty name"),
        (message("/k", 15, b"a=b"), "does not end in a newline"),
        (message("/k", 16, b"a=b\n\n"), "exactly one '='"),
        (message("k" * 256, 17), "key of 256 bytes"),
        (message("", 18), "key of 0 bytes"),
        (message("/k", 19, uuid=b"12345"), "expected 0 or 16 bytes, got 5"),
        (message("KTHXBAI", 20), "reserved"),
        (message("/k", 21), ""),
    ]
    with FakeServer() as server, Program("client.py", "--connect", server.endpoint, "--lenient") as client:
        server.serve(end(1))
        client.expect("synced")
        for frames, reason in cases:
            server.publish(frames)
            if reason:
                found = client.expect("violation")["reason"]
                assert reason in found, f"expected '{reason}', got '{found}'"
            else:
                client.expect("hugz" if frames[0] == chp.HUGZ else "update", without="violation")
        client.set("/echo", "sent", properties={"a": "1", "b": "2"}, uuid=UUID.hex())
        client.expect("set")
        server.publish(message("/echo", 22, b"b=2\na=1\n", b"sent", UUID))
        assert "another properties" in client.expect("violation")["reason"]
    for frames, reason in (case for case in cases if case[1] in ("with sequence 0", "with sequence 5 after 5", "with a body")):
        with FakeServer() as server, Program("client.py", "--connect", server.endpoint) as client:
            server.serve(end(1))
            client.expect("synced")
            server.publish(message("HUGZ", 5, body=b""))
            server.publish(frames)
            client.ends(EXIT_VIOLATION, reason)


def strict_snapshots() -> None:
    def flat(*messages: list[bytes]) -> list[bytes]:
        return [frame for frames in messages for frame in frames]

    cases: list[tuple[tuple[str, ...], list[list[bytes]], str]] = [
        ((), [message("/k", 0)], "KVSYNC of b'/k' with sequence 0"),
        ((), [message("/k", 3), end(2)], "KTHXBAI with sequence 2 after a KVSYNC with 3"),
        ((), [message("/k", 3), end(3, b"count=2\n")], "count=2 after 1 KVSYNCs"),
        ((), [end(3), message("/k", 3)], "a message after KTHXBAI"),
        ((), [message("/k", 3)[:3]], "expected 5 frames, got 3"),
        (("--subtree", "/a/"), [message("/b/k", 3)], "asked for b'/a/'"),
        (("--req",), [flat(message("/k", 3))], "without KTHXBAI"),
        (("--req",), [flat(end(3), message("/k", 3))], "5 frames after KTHXBAI"),
        (("--req",), [flat(message("/k", 3), end(3)) + [b""]], "1 frames after KTHXBAI"),
    ]
    for arguments, answer, reason in cases:
        with FakeServer() as server, Program("client.py", "--connect", server.endpoint, *arguments) as client:
            server.serve(*answer)
            client.ends(EXIT_VIOLATION, reason)


def bad_commands() -> None:
    with model(6) as server:
        with client_of(server) as client:
            client.send(fly=True)
            client.ends(2, "unknown command")
        server.send(stop_publishing=True, requests="sometimes")
        server.ends(2, "answer, drop or free")


SCENARIOS: list[Callable[[], None]] = [
    model_five,
    model_six_python,
    model_six_c,
    subtree,
    requests,
    restart,
    silence,
    two_requests,
    set_and_quit,
    failover,
    wedge,
    strict_server,
    what_an_old_client_takes,
    strict_updates,
    strict_snapshots,
    bad_commands,
]


def outcome(scenario: Callable[[], None]) -> str:
    """Empty if all was right."""
    started = time.monotonic()
    try:
        scenario()
    except Exception:
        return f"{scenario.__name__}: FAILED\n{traceback.format_exc()}"
    print(f"{scenario.__name__}: ok, {time.monotonic() - started:.1f} s", flush=True)
    return ""


def main() -> int:
    wanted = [scenario for scenario in SCENARIOS if scenario.__name__ in sys.argv[1:] or len(sys.argv) == 1]
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
        failures = list(filter(None, pool.map(outcome, wanted)))
    print("".join(failures), file=sys.stderr, end="")
    return 1 if failures or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
