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

import atexit
import multiprocessing
import os
import re
import resource
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.environ.get("RINGWIRE", os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "ringwire"))
QUICK = "--quick" in sys.argv
COUNT = 2_000 if QUICK else 10_000
# What the kernel's own memory is not: the server's, of one connection that has begun a handshake.
HELD_BYTES_MAX = 16 << 10
SLACK_BYTES = 4 << 20
HANDSHAKE_TIMEOUT_S = 15
missed = []
started = []


@atexit.register
def end_all():
    for process in started:
        process.kill()


def row(what, value, bar, is_met):
    print(f"{what:<62} {value:>16} {bar:>16} {'ok' if is_met else 'MISSED'}", flush=True)
    if not is_met:
        missed.append(what)


class Server:
    def __init__(self, folder):
        self.pem, key = os.path.join(folder, "own.pem"), os.path.join(folder, "own.key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE",
             "-keyout", key, "-out", self.pem],
            check=True, capture_output=True,
        )
        command = [BIN, "--addr=127.0.0.1:0", "--cores=1", "--pin=false", "--log=warn", f"--tls-cert={self.pem}",
                   f"--tls-key={key}", f"--handshake-timeout={HANDSHAKE_TIMEOUT_S}s", "--max-connections=20000"]
        environment = {**os.environ, "MIMALLOC_PURGE_DELAY": "0"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(self.process)
        self.port = int(re.search(r"wss://[^ ,]+:(\d+)", self.process.stdout.readline()).group(1))

    def rss_bytes(self):
        with open(f"/proc/{self.process.pid}/smaps_rollup") as rollup:
            return int(re.search(r"^Rss: +(\d+) kB", rollup.read(), re.M).group(1)) << 10

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


class Echo:
    """One WebSocket over TLS that asks again and again how long an answer takes."""

    def __init__(self, server):
        context = ssl.create_default_context(cafile=server.pem)
        self.socket = context.wrap_socket(server.connect(), server_hostname="localhost")
        self.socket.sendall(
            b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        assert b" 101 " in head, head

    def ask(self):
        payload = os.urandom(64)
        began = time.perf_counter()
        self.socket.sendall(struct.pack("!BBI", 0x82, 0x80 | 64, 0) + payload)
        answer = b""
        while len(answer) < 66:
            answer += self.socket.recv(66 - len(answer))
        assert answer[2:] == payload
        return (time.perf_counter() - began) * 1e6

    def p99_us(self, seconds):
        """In this time, asked every two milliseconds."""
        took, until = [], time.monotonic() + seconds
        while time.monotonic() < until:
            took.append(self.ask())
            time.sleep(0.002)
        return statistics.quantiles(took, n=100)[98], len(took)


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
with tempfile.TemporaryDirectory() as folder:
    server = Server(folder)
    echo, words = Echo(server), hello()
    # The first time is not like the others: memory that is kept for use is taken then.
    stopped_once = [server.connect() for _ in range(100)]
    for one in stopped_once:
        one.sendall(words)
        one.close()
    print(f"{'':<62} {'measured':>16} {'bar':>16}")
    stopped(server, echo, "within their first words", words[: len(words) // 2])
    stopped(server, echo, "behind their first words", words)
    stream(server, echo, words)
sys.exit(1 if missed else 0)
