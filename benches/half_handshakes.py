#!/usr/bin/env python3
"""What TLS handshakes that stop half-way do: to the server's memory, and to those who speak with it.

    cargo build --release -p ringwire && benches/half_handshakes.py [--quick] [--rounds N] [--seconds S]

Prints a table and exits 1 when a bar is missed:

- 10,000 connections that send a part of their first words, or all of them and then nothing: what the server holds for each,
  that nobody else is kept waiting by them, and that the memory is back when their time is up;
- 1,000 such connections a second beside an echo over TLS: its 99th percentile stays within twice what it is without them. Both
  take turns, four seconds each, and a round's two are held against each other: the median of the rounds counts.

Beside that, in turns with it: as many connections to the same server's plain port, which send as many bytes of a request and then
nothing. What they do to the echo is what connections alone do; the rest is their handshakes'.

Whoever begins the connections gives way to the echo's client (SCHED_IDLE), so that what is measured is the server. Less than 900 a
second is no such flood, and counts as missed.

It needs 11,000 open files (`ulimit -n`), openssl for a certificate, and an idle machine.
"""

import argparse
import multiprocessing
import os
import resource
import ssl
import statistics
import time

from common import Server, WebSocket, finish, heading, row, told

# What the kernel's own memory is not: the server's, of one connection that has begun a handshake.
HELD_BYTES_MAX = 16 << 10
SLACK_BYTES = 4 << 20
HANDSHAKE_TIMEOUT_S = 15
PER_SECOND, PER_SECOND_MIN = 1_000, 900
# So many stay, and the oldest goes.
STAYING = 500


def hello():
    """What a client of TLS says first."""
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(inward, outward, server_hostname="localhost")
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outward.read()


def request(size):
    """As many bytes of one that does not end."""
    return b"GET /echo HTTP/1.1\r\nHost: localhost\r\nX-Padding: ".ljust(size, b"x")[:size]


def settled(server, at_most):
    """Waits until memory is back, or does not come back."""
    until = time.monotonic() + HANDSHAKE_TIMEOUT_S + 30
    while server.rss_bytes() > at_most and time.monotonic() < until:
        time.sleep(0.5)
    return server.rss_bytes()


def stopped(server, echo, count, what, words):
    echo.p99_us(1)
    before = server.rss_bytes()
    sockets = []
    for number in range(count):
        one = server.connect()
        one.sendall(words)
        sockets.append(one)
    time.sleep(2)
    held = (server.rss_bytes() - before) / count
    slowest, _ = echo.p99_us(2)
    for one in sockets:
        one.setblocking(False)
    after = settled(server, before + SLACK_BYTES)
    for one in sockets:
        one.close()
    row(f"{count:,} that stop {what}: bytes held for each", f"{held:,.0f}", f"<= {HELD_BYTES_MAX:,}", held <= HELD_BYTES_MAX)
    row("  99th percentile of an echo meanwhile", f"{slowest:,.0f} us", "<= 50,000 us", slowest <= 50_000)
    growth = after - before
    row("  memory that is not back when their time is up", f"{growth / 1024:,.0f} KiB", "<= 4096 KiB", growth <= SLACK_BYTES)


class Flood:
    """Connections to one of the server's ports that say these words and then nothing, in a process of its own: two threads of
    one would wait for each other."""

    def __init__(self, server, place, words):
        context = multiprocessing.get_context("fork")
        self.begun, self.is_over = context.Value("q", 0, lock=False), context.Event()
        self.process = context.Process(target=self.run, args=(server, place, words), daemon=True)
        self.process.start()

    def run(self, server, place, words):
        # It has the processor when nobody else wants it: the echo's client above all.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        sockets, began = [], time.monotonic()
        while not self.is_over.is_set():
            one = server.connect(place)
            one.sendall(words)
            sockets.append(one)
            self.begun.value += 1
            if len(sockets) > STAYING:
                sockets.pop(0).close()
            time.sleep(max(0, began + self.begun.value / PER_SECOND - time.monotonic()))

    def end(self):
        self.is_over.set()
        self.process.join()


def beside(server, echo, place, words, seconds):
    """The 99th percentile of an echo beside a flood, in times of what it is just before it; both; and connections a second."""
    before, _ = echo.p99_us(seconds)
    flood = Flood(server, place, words)
    time.sleep(0.5)
    began, first = time.monotonic(), flood.begun.value
    during, _ = echo.p99_us(seconds)
    rate = (flood.begun.value - first) / (time.monotonic() - began)
    flood.end()
    # The server learns that the last of them have gone.
    time.sleep(0.5)
    return during / before, before, during, rate


def stream(server, echo, words, rounds, seconds):
    found = {"handshakes": [], "connections": []}
    for number in range(rounds):
        # Neither is always the first.
        kinds = [("handshakes", 0, words), ("connections", 1, request(len(words)))]
        for kind, place, said in reversed(kinds) if number % 2 else kinds:
            found[kind].append(beside(server, echo, place, said, seconds))
            _, before, during, rate = found[kind][-1]
            print(f"    99th percentile {before:,.0f} us, then {during:,.0f} us beside {rate:,.0f} {kind} a second", flush=True)
    ratio, before, during, _ = (statistics.median(each) for each in zip(*found["handshakes"]))
    print(f"    medians {before:,.0f} us, then {during:,.0f} us beside handshakes")
    row(f"{PER_SECOND:,} a second beside an echo: its 99th percentile", f"{ratio:.2f} x before", "<= 2.00 x", ratio <= 2)
    told("  beside as many connections to the plain port", f"{statistics.median(each[0] for each in found['connections']):.2f} x before")
    rate = min(each[3] for each in found["handshakes"])
    few = "" if rate >= PER_SECOND_MIN else ": too few to prove it"
    row(f"  begun a second in the slowest turn{few}", f"{rate:,.0f}", f">= {PER_SECOND_MIN}", rate >= PER_SECOND_MIN)
    told("  and those to the plain port", f"{min(each[3] for each in found['connections']):,.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 connections and one round: for trying it out")
    parser.add_argument("--rounds", type=int, default=3, help="of 1,000 a second")
    parser.add_argument("--seconds", type=float, default=4, help="of each turn")
    asked = parser.parse_args()
    count, rounds = (2_000, 1) if asked.quick else (10_000, asked.rounds)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert hard >= count + 1_000, f"{hard} open files are too few"
    arguments = [f"--handshake-timeout={HANDSHAKE_TIMEOUT_S}s", "--pin=false", "--max-connections=20000"]
    server = Server(*arguments, scheme="wss", also="ws", purges=True)
    context = ssl.create_default_context(cafile=server.pem)
    echo, words = WebSocket(context.wrap_socket(server.connect(), server_hostname="localhost")), hello()
    # The first time is not like the others: memory that is kept for use is taken then.
    stopped_once = [server.connect() for _ in range(100)]
    for one in stopped_once:
        one.sendall(words)
        one.close()
    heading()
    stopped(server, echo, count, "within their first words", words[: len(words) // 2])
    stopped(server, echo, count, "behind their first words", words)
    stream(server, echo, words, rounds, asked.seconds)
    finish()


if __name__ == "__main__":
    main()
