"""Clients and workers, publishers and subscribers, producers and consumers in pyzmq, behind a proxy.

    proxied.py request-reply FRONTEND BACKEND      REQ and DEALER clients, REP and DEALER workers
    proxied.py publish-subscribe FRONTEND BACKEND  PUB publishers, SUB subscribers
    proxied.py pipeline FRONTEND BACKEND           PUSH producers, PULL consumers
    proxied.py control CONTROL                     libzmq's words over REQ
    proxied.py capture CAPTURE COUNT               counts what comes from a capture socket

Each checks what it gets, prints one JSON line and ends with 0; whatever is wrong is said on stderr, and the code is 1.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from collections import Counter
from typing import Any

import zmq

DEADLINE_MS = 30_000
MESSAGES = 500


def socket(context: zmq.Context[Any], kind: int, endpoint: str) -> zmq.Socket[bytes]:
    made = context.socket(kind)
    made.linger = 0
    made.rcvtimeo = made.sndtimeo = DEADLINE_MS
    made.connect(endpoint)
    return made


def request_reply(context: zmq.Context[Any], frontend: str, backend: str) -> dict[str, Any]:
    served: Counter[str] = Counter()

    def work(name: str, kind: int) -> None:
        worker = socket(context, kind, backend)
        while True:
            parts = worker.recv_multipart()
            # A DEALER sees the envelope: the client's name, and the delimiter.
            head = parts[: parts.index(b"") + 1] if kind == zmq.DEALER else []
            body = parts[len(head) :]
            if body == [b"stop"]:
                worker.send_multipart([*head, b"stopped"])
                worker.close(linger=1000)
                return
            served[name] += 1
            worker.send_multipart([*head, name.encode(), *reversed(body)])

    workers = [("rep", zmq.REP), ("dealer", zmq.DEALER)]
    threads = [threading.Thread(target=work, args=worker) for worker in workers]
    for thread in threads:
        thread.start()
    req = socket(context, zmq.REQ, frontend)
    dealer = socket(context, zmq.DEALER, frontend)
    for number in range(MESSAGES):
        body = [b"%d" % number, b"", b"x" * (number % 3000)]
        req.send_multipart(body)
        dealer.send_multipart([b"", *body])
        for reply in (req.recv_multipart(), dealer.recv_multipart()[1:]):
            assert reply[1:] == body[::-1], f"request {number}: got {reply}"
    # Whichever takes the first takes no second.
    for _ in workers:
        req.send(b"stop")
        assert req.recv() == b"stopped"
    for thread in threads:
        thread.join()
    assert sum(served.values()) == 2 * MESSAGES, served
    return {"served": served}


def publish_subscribe(context: zmq.Context[Any], frontend: str, backend: str) -> dict[str, Any]:
    subscriber = socket(context, zmq.SUB, backend)
    for topic in (b"a", b"probe"):
        subscriber.subscribe(topic)
    publisher = socket(context, zmq.PUB, frontend)
    # Until the subscription has come through to the publisher.
    subscriber.rcvtimeo = 20
    expires = time.monotonic() + DEADLINE_MS / 1000
    while time.monotonic() < expires:
        publisher.send(b"probe")
        try:
            assert subscriber.recv() == b"probe"
            break
        except zmq.Again:
            continue
    subscriber.rcvtimeo = DEADLINE_MS
    for number in range(MESSAGES):
        publisher.send_multipart([b"a", b"%d" % number])
        publisher.send_multipart([b"b", b"%d" % number])
    got = 0
    while got < MESSAGES:
        parts = subscriber.recv_multipart()
        if parts != [b"probe"]:
            assert parts == [b"a", b"%d" % got], parts
            got += 1
    return {"received": got}


def pipeline(context: zmq.Context[Any], frontend: str, backend: str) -> dict[str, Any]:
    consumer = socket(context, zmq.PULL, backend)
    producers = [socket(context, zmq.PUSH, frontend) for _ in range(2)]
    for number in range(MESSAGES):
        for name, producer in enumerate(producers):
            producer.send_multipart([b"%d" % name, b"%d" % number, bytes(10 * number)])
    next_of = [0, 0]
    for _ in range(2 * MESSAGES):
        name, number, body = consumer.recv_multipart()
        assert int(number) == next_of[int(name)] and len(body) == 10 * int(number), (name, number)
        next_of[int(name)] += 1
    return {"received": sum(next_of)}


def control(context: zmq.Context[Any], endpoint: str) -> dict[str, Any]:
    req = socket(context, zmq.REQ, endpoint)

    def command(word: bytes) -> list[bytes]:
        req.send(word)
        return req.recv_multipart()

    assert command(b"PAUSE") == [b""]
    assert command(b"RESUME") == [b""]
    frames = command(b"STATISTICS")
    assert [len(frame) for frame in frames] == [8] * 8, frames
    statistics = [struct.unpack("=Q", frame)[0] for frame in frames]
    assert command(b"TERMINATE") == [b""]
    return {"statistics": statistics}


def capture(context: zmq.Context[Any], endpoint: str, count: str) -> dict[str, Any]:
    spy = socket(context, zmq.PULL, endpoint)
    return {"captured": sum(1 for _ in range(int(count)) if spy.recv_multipart())}


def main() -> int:
    scenarios = {
        "request-reply": request_reply,
        "publish-subscribe": publish_subscribe,
        "pipeline": pipeline,
        "control": control,
        "capture": capture,
    }
    with zmq.Context() as context:
        try:
            result = scenarios[sys.argv[1]](context, *sys.argv[2:])
        except (AssertionError, zmq.ZMQError) as error:
            print(f"{sys.argv[1]}: {error!r}", file=sys.stderr)
            context.destroy(linger=0)
            return 1
        context.destroy(linger=1000)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
