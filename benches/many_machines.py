#!/usr/bin/env python3
"""Several nodes on this machine, joined by NATS: whether anything is lost, and what it costs.

    cargo build --release && benches/many_machines.py [--rounds N] [--seconds S]

Needs nats-server. Prints a table and exits 1 when a bar is missed:

- 3,000 sockets in 300 rooms spread over three nodes: nothing is lost, doubled or reordered;
- one of three nodes is killed (SIGKILL) in the middle of that: the others' members lose nothing of each other, and within six
  seconds nobody counts what it had;
- a publish to a room whose members are all here costs what it costs without NATS, within 3 %;
- a delivery of what comes from another node costs at most 1.3 times a local one, at 100 members a room.

Costs are CPU time of the server process per delivery, medians over rounds in turn. Nodes and load generator share the machine's
processors, so run it on an idle one.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time

from common import LOADTEST, WORK, CLIENT_CPU, SERVER_CPU, Server, WebSocket, finish, heading, row, started

NATS_PORT = 14871
NODE_TIMEOUT_S = 5


def nats():
    program = shutil.which("nats-server", path="/usr/local/bin:/usr/bin:/usr/sbin:/sbin")
    if not program:
        sys.exit("nats-server is not installed")
    process = subprocess.Popen([program, "-a", "127.0.0.1", "-p", str(NATS_PORT)], stderr=subprocess.DEVNULL)
    started.append(process)
    time.sleep(0.5)


def node(name, cpu=None, joined=True):
    arguments = ["--nats-url", f"nats://127.0.0.1:{NATS_PORT}", "--node", name] if joined else []
    return Server(*arguments, cpu=cpu)


def await_nodes(nodes):
    until = time.monotonic() + 10
    while any(node.metric("ringwire_nodes") < len(nodes) - 1 for node in nodes):
        assert time.monotonic() < until, "the nodes do not find each other"
        time.sleep(0.1)


class Load:
    """The load generator's `rooms` against these nodes, in the background."""

    def __init__(self, nodes, *arguments, pinned=False):
        self.out = f"{WORK}/rooms.json"
        urls = [word for node in nodes for word in ("--url", f"{node.url}/rooms/{{room}}")]
        pin = ["--pin", CLIENT_CPU] if pinned else []
        command = [LOADTEST, "rooms", *urls, *pin, "--quiet", "--json", self.out, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(self.process)

    def figures(self):
        said, _ = self.process.communicate()
        started.remove(self.process)
        with open(self.out) as figures:
            figures = json.load(figures)
        checks = figures["checks"]
        wrong = sum(checks[what] for what in ("lost", "duplicated", "reordered"))
        if self.process.returncode != 0:
            print(said)
            wrong = max(wrong, 1)
        return figures, wrong


def spread(seconds):
    nodes = [node(name) for name in "abc"]
    await_nodes(nodes)
    load = Load(nodes, "--rooms", "300", "--members", "10", "--rate", "1000", "--duration", str(seconds))
    figures, wrong = load.figures()
    row(f"3,000 sockets, 300 rooms, three nodes: {figures['messages']:,} deliveries, wrong", wrong, "0", wrong == 0, width=90)
    for each in nodes:
        each.end()


def killed(seconds):
    nodes = [node(name) for name in "abc"]
    await_nodes(nodes)
    doomed = nodes.pop()
    # Members of the same rooms, who read what comes.
    members = [WebSocket(doomed.connect(), f"/rooms/room-{number}") for number in range(300)]

    def read():
        for member in members:
            try:
                member.socket.settimeout(0.01)
                member.read()
            except (OSError, AssertionError):
                pass

    load = Load(nodes, "--rooms", "300", "--members", "10", "--rate", "500", "--duration", str(seconds + NODE_TIMEOUT_S))
    time.sleep(seconds / 2)
    reader = threading.Thread(target=read)
    reader.start()
    counted = nodes[0].metric("ringwire_nodes_connections")
    doomed.process.kill()
    began = time.monotonic()
    while any(each.metric("ringwire_nodes") > 1 for each in nodes) and time.monotonic() < began + 30:
        time.sleep(0.05)
    took = time.monotonic() - began
    reader.join()
    others = [each.metric("ringwire_websockets") for each in nodes]
    elsewhere = [each.metric("ringwire_nodes_connections") for each in nodes]
    figures, wrong = load.figures()
    doomed.process.wait()
    started.remove(doomed.process)
    row(f"a node with 300 of {counted + others[0]:,.0f} is killed: {figures['messages']:,} deliveries elsewhere, wrong", wrong, "0", wrong == 0, width=90)
    row("nobody counts what it had", f"{took:.1f} s", "<= 6 s", took <= 6 and elsewhere == others[::-1], width=90)
    for each in nodes:
        each.end()


def cost(nodes, measured, members, seconds):
    """Microseconds of the measured node's CPU for each of its deliveries."""
    if len(nodes) > 1:
        await_nodes(nodes)
    began = measured.cpu_s()
    targets = nodes if members > 100 else [measured]
    load = Load(targets, "--rooms", "20", "--members", str(members), "--duration", str(seconds), pinned=True)
    figures, wrong = load.figures()
    assert wrong == 0, "something was lost"
    taken = measured.metric("ringwire_messages_sent_total")
    used = measured.cpu_s() - began
    for each in nodes:
        each.end()
    return used / taken * 1e6


def costs(rounds, seconds):
    alone, here, away = [], [], []
    for _ in range(rounds):
        lone = node("a", SERVER_CPU, joined=False)
        alone.append(cost([lone], lone, 100, seconds))
        pair = [node("a", SERVER_CPU), node("b", CLIENT_CPU)]
        here.append(cost(pair, pair[0], 100, seconds))
        # In turn: of 200 members of a room half are here, and the one that publishes is there.
        pair = [node("b", CLIENT_CPU), node("a", SERVER_CPU)]
        away.append(cost(pair, pair[1], 200, seconds))
    alone, here, away = map(statistics.median, (alone, here, away))
    row("members on the publisher's node alone, with NATS / without", f"{here / alone:.3f} x", "<= 1.03 x", here <= 1.03 * alone, width=90)
    row("a delivery of what comes from another node / local", f"{away / alone:.2f} x", "<= 1.30 x", away <= 1.3 * alone, width=90)
    print(f"    {alone:.3f} us a delivery without NATS, {here:.3f} with, {away:.3f} from another node")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    arguments = parser.parse_args()
    nats()
    heading(width=90)
    spread(arguments.seconds)
    killed(arguments.seconds)
    costs(arguments.rounds, arguments.seconds)
    finish()


main()
