#!/usr/bin/env python3
"""What TLS handshakes that stop half-way do: to the server's memory, and to those who speak with it.

    cargo build --release -p ringwire && benches/half_handshakes.py [--quick]

Prints a table and exits 1 when a bar is missed:

- 10,000 connections that send a part of their first words, or all of them and then nothing: what the server holds for each,
  that nobody else is kept waiting by them, and that the memory is back when their time is up;
- 1,000 such connections a second for ten seconds, beside an echo over TLS: its 99th percentile stays within twice what it
  was.

It needs 11,000 open files (`ulimit -n`), openssl for a certificate, and an idle machine.
"""

import multiprocessing
import resource
import ssl
import sys
import time

from common import Server, WebSocket, finish, heading, row

QUICK = "--quick" in sys.argv
COUNT = 2_000 if QUICK else 10_000
# What the kernel's own memory is not: the server's, of one connection that has begun a handshake.
HELD_BYTES_MAX = 16 << 10
SLACK_BYTES = 4 << 20
HANDSHAKE_TIMEOUT_S = 15


def hello():
    """What a client of TLS says first."""
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(inward, outward, server_hostname="localhost")
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outward.read()


def settled(server, at_most):
    """Waits until memory is back, or does not come back."""
    until = time.monotonic() + HANDSHAKE_TIMEOUT_S + 30
    while server.rss_bytes() > at_most and time.monotonic() < until:
        time.sleep(0.5)
    return server.rss_bytes()


def stopped(server, echo, what, words):
    echo.p99_us(1)
    before = server.rss_bytes()
    sockets = []
    for number in range(COUNT):
        one = server.connect()
        one.sendall(words)
        sockets.append(one)
    time.sleep(2)
    held = (server.rss_bytes() - before) / COUNT
    slowest, _ = echo.p99_us(2)
    for one in sockets:
        one.setblocking(False)
    after = settled(server, before + SLACK_BYTES)
    for one in sockets:
        one.close()
    row(f"{COUNT:,} that stop {what}: bytes held for each", f"{held:,.0f}", f"<= {HELD_BYTES_MAX:,}", held <= HELD_BYTES_MAX)
    row("  99th percentile of an echo meanwhile", f"{slowest:,.0f} us", "<= 50,000 us", slowest <= 50_000)
    growth = after - before
    row("  memory that is not back when their time is up", f"{growth / 1024:,.0f} KiB", "<= 4096 KiB", growth <= SLACK_BYTES)


def stream(server, echo, words):
    before, count = echo.p99_us(4 if QUICK else 10)
    seconds = 4 if QUICK else 10
    begun = multiprocessing.Value("i")

    def flood():
        sockets, began = [], time.monotonic()
        while time.monotonic() < began + seconds + 1:
            one = server.connect()
            one.sendall(words)
            sockets.append(one)
            begun.value += 1
            if len(sockets) > 500:
                sockets.pop(0).close()
            time.sleep(max(0, began + begun.value / 1_000 - time.monotonic()))

    # A process of its own: two threads of one would wait for each other.
    flooding = multiprocessing.get_context("fork").Process(target=flood)
    flooding.start()
    time.sleep(0.5)
    during, _ = echo.p99_us(seconds)
    flooding.join()
    print(f"begun {begun.value / (seconds + 1):,.0f} a second; {count} answers before")
    row("1,000 a second beside an echo: its 99th percentile", f"{during:,.0f} us", f"<= 2 x {before:,.0f} us", during <= 2 * before)


soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
assert hard >= COUNT + 1_000, f"{hard} open files are too few"
server = Server(f"--handshake-timeout={HANDSHAKE_TIMEOUT_S}s", "--pin=false", "--max-connections=20000", scheme="wss", purges=True)
context = ssl.create_default_context(cafile=server.pem)
echo, words = WebSocket(context.wrap_socket(server.connect(), server_hostname="localhost")), hello()
# The first time is not like the others: memory that is kept for use is taken then.
stopped_once = [server.connect() for _ in range(100)]
for one in stopped_once:
    one.sendall(words)
    one.close()
heading()
stopped(server, echo, "within their first words", words[: len(words) // 2])
stopped(server, echo, "behind their first words", words)
stream(server, echo, words)
finish()
