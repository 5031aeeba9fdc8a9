#!/usr/bin/env python3
"""Whether many connections cost more than few: CPU per message, and memory of those that are idle.

    cargo build --release && cargo build --release --example echo_styles && benches/flat.py [--rounds N] [--seconds S] [--most N]

Exits 1 when a bar is missed:

- CPU time per message, 64 bytes echoed on one connection in a hundred and at least 64, while the others are silent: with any
  number of connections up to 100,000 at most 1.25 times that of 64;
- resident memory of an idle connection that has had its first message: at most 200 bytes; of one of the event route that has
  joined a room, at most 700; of one with a task of its own, at most 1,500.

Every server of the first part has as many rings as the most connections need, since each ring of a process may have as many
descriptors as its limit says (`ulimit -n`). The kernel's own memory for the two sockets of each connection, which are both here, is
not in the figures, but has to be there: about a gigabyte for 100,000. What there is too little for is left out, and named. Both
sides take more addresses of the loopback network where one has not enough ports.
"""

import argparse
import os
import resource
import statistics
import time

from common import BIN, CLIENT_CPU, SERVER_CPU, WORK, Load, Server, finish, heading, measured, row

SIZES = [64, 1_000, 10_000, 100_000]
# Of descriptors that a ring may not use for connections.
SPARE = 256
# Of a connection whose two ends are here.
KERNEL_BYTES = 12 << 10
JOINING = """
connections = {count}
duration = "1h"

[[users]]
path = "/ws"
begin = [
    {{ expect = {{ json = {{ event = "connected" }} }} }},
    {{ send = '{{"event":"join","data":{{"room":"room-{{user%1000}}"}}}}', expect = {{ json = {{ event = "joined" }} }} }},
]
steps = [{{ think = "1h" }}]
"""


def descriptors():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1_000_000 if hard == resource.RLIM_INFINITY else hard


def available_bytes():
    with open("/proc/meminfo") as meminfo:
        lines = dict(line.split(":", 1) for line in meminfo)
    return int(lines["MemAvailable"].split()[0]) << 10


def bounded(sizes):
    """Those that this machine has memory for."""
    limit = available_bytes() // 2 // KERNEL_BYTES
    left_out = [size for size in sizes if size > limit]
    if left_out:
        print(f"left out for want of memory: {', '.join(f'{size:,}' for size in left_out)} connections")
    return [size for size in sizes if size <= limit]


def await_connections(server, count, load):
    until = time.monotonic() + 300
    while server.metric("ringwire_websockets") < count:
        if load.process.poll() is not None:
            load.figures()
        assert time.monotonic() < until, f"{count:,} connections were not opened"
        time.sleep(0.2)


def cost(count, rings, seconds):
    """Microseconds of the server's CPU for a message on one in a hundred."""
    active = max(64, count // 100)
    server = Server(f"--cores={rings}", "--pin=false", "--idle-timeout=0", "--ping-interval=0", cpu=SERVER_CPU)
    idle = None
    if count > active:
        idle = Load("connect", f"{server.url}/echo", "--connections", count - active, "--hold", "1h", "--echo")
        await_connections(server, count - active, idle)
        time.sleep(1)
    figures = measured(
        server, "echo", "/echo", "--connections", active, "--size", 64, "--pin", CLIENT_CPU,
        "--duration", seconds, "--warmup", 1,
    )
    held = server.metric("ringwire_websockets")
    assert held >= count - active, f"of {count - active:,} idle connections {held:,.0f} are left"
    if idle:
        idle.interrupt()
        idle.figures(None)
    server.end()
    return figures["server"]["cpu_us_per_message"]


def costs(sizes, rings, rounds, seconds):
    found = {size: [] for size in sizes}
    for _ in range(rounds):
        for size in sizes:
            found[size].append(cost(size, rings, seconds))
    few = statistics.median(found[sizes[0]])
    print(f"us of CPU per message: {'; '.join(f'{size:,}: {statistics.median(found[size]):.2f}' for size in sizes)}")
    for size in sizes[1:]:
        # Rounds stand in pairs: what the machine did meanwhile was done to both.
        ratio = statistics.median(many / one for many, one in zip(found[size], found[sizes[0]]))
        row(f"CPU per message, {size:,} connections / {sizes[0]}", f"{ratio:.2f} x of {few:.1f} us", "<= 1.25 x", ratio <= 1.25)


def memory(what, count, bar, server, load):
    """Resident bytes of each of so many connections."""
    # Buffers are the core's, not the connections': those that are in use have been touched, and so has the rest.
    measured(server, "echo", "/echo", "--connections", 16, "--size", 16384, "--duration", 1, "--warmup", 0)
    time.sleep(1)
    before = server.rss_bytes()
    load = load()
    await_connections(server, count, load)
    time.sleep(2)
    each = (server.rss_bytes() - before) / count
    load.interrupt()
    load.figures(None)
    server.end()
    row(f"{what}: bytes of each of {count:,}", f"{each:.0f}", f"<= {bar}", each <= bar)


def memories(count):
    calm = ["--idle-timeout=0", "--ping-interval=0"]

    def echo(server):
        return lambda: Load("connect", f"{server.url}/echo", "--connections", count, "--hold", "1h", "--echo")

    server = Server(*calm, purges=True)
    memory("first message sent", count, 200, server, echo(server))

    server = Server(*calm, purges=True)
    with open(f"{WORK}/joining.toml", "w") as scenario:
        scenario.write(JOINING.format(count=count))
    memory(
        "on /ws, a room joined", count, 700, server,
        lambda: Load("run", server.url, f"{WORK}/joining.toml", "--concurrency", 64),
    )

    example = os.path.join(BIN, "examples", "echo_styles")
    if not os.path.exists(example):
        return print(f"left out: a task of its own; {example} is not built")
    server = Example(example)
    memory("with a task", count, 1500, server, echo(server))


class Example(Server):
    """The one whose `/echo` is a task: it takes its settings from variables alone, and its port too."""

    def __init__(self, program):
        calm = {"RINGWIRE_IDLE_TIMEOUT": "0", "RINGWIRE_PING_INTERVAL": "0", "RINGWIRE_LOG": "warn"}
        self.begin([program], purges=True, PORT="0", RINGWIRE_CORES="1", **calm)

    def metric(self, name):
        # It has no /metrics: what its sockets are is the kernel's to say.
        assert name == "ringwire_websockets"
        with open(f"/proc/{self.process.pid}/net/tcp") as table:
            ends = [line.split() for line in table if ":" in line][1:]
        return sum(1 for end in ends if end[3] == "01" and int(end[1].split(":")[1], 16) == self.port)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="connections")
    arguments = parser.parse_args()
    sizes = bounded([size for size in SIZES if size < arguments.most] + [arguments.most])
    each = descriptors() - SPARE
    rings = -(-sizes[-1] // (each * 9 // 10))
    print(f"{each + SPARE:,} descriptors: {rings} ring{'s' if rings > 1 else ''} for {sizes[-1]:,} connections")
    heading()
    costs(sizes, rings, arguments.rounds, arguments.seconds)
    memories(min(10_000, each // 2))
    finish()


main()
