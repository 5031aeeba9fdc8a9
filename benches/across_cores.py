#!/usr/bin/env python3
"""What it costs to reach a connection of another core, beside one core that does the same.

    cargo build --release && benches/across_cores.py [--rounds N] [--seconds S] [--rows PART,PART] [--list]

Messages to single sockets by POST /api/message/{id} (`emit`), and to rooms of four (`rooms`): 1, 10 and 100 under way at a time,
and as many as the server takes. One ring, two, and four on two processors take turns, each time a fresh server. With several
rings connections are spread over them, so that of two rings every other message by POST is for the other one, of four three in
four, and a room of four has members on both, or on three or four.

Prints of each the server's CPU time per message, medians over the rounds, and what its rings counted: how often they entered the
kernel, how often one woke another that slept, and the letters read. A message to a room is one that is published: it has four
receivers. Exits 1 when a bar is missed:

- a message by POST takes at most 40 us at 1,000 a second, on two rings;
- and at most 8 us of one ring when all it can do is that, with connections kept alive and requests in a pipeline.

Server and load generator share the machine's processors, so run it on an idle one. Where both processors have rings, the load
generator takes its turns on them.
"""

import argparse
import statistics

from common import CLIENT_CPU, SERVER_CPU, Server, finish, heading, measured, row

EMIT = ("emit", "/ws", "ringwire_messages_sent_total")
ROOMS = ("rooms", "/rooms/{room}", "ringwire_messages_received_total")
# Name, scenario, what the load generator is told, the bar of (rings, microseconds).
ROWS = [
    ("POST, 1,000 a second", EMIT, "--connections 100 --posters 8 --rate 1000", (2, 40)),
    ("POST, 1 under way", EMIT, "--connections 100 --posters 1", None),
    ("POST, 10 under way", EMIT, "--connections 100 --posters 10", None),
    ("POST, 100 under way", EMIT, "--connections 200 --posters 100", None),
    ("POST, all it takes", EMIT, "--connections 64 --posters 16 --pipeline 32", (1, 8)),
    ("rooms, 1 under way", ROOMS, "--rooms 1 --members 4", None),
    ("rooms, 10 under way", ROOMS, "--rooms 10 --members 4", None),
    ("rooms, 100 under way", ROOMS, "--rooms 100 --members 4", None),
    ("rooms, all it takes", ROOMS, "--rooms 100 --members 4 --burst 16", None),
]
RINGS = [1, 2, 4]
COUNTED = {
    "enters": "ringwire_ring_enters_total",
    "wakes": "ringwire_bells_total",
    "letters": "ringwire_letters_total",
}


def sample(rings, scenario, load, seconds):
    name, path, messages = scenario
    pinned = [] if rings > 1 else ["--pin", CLIENT_CPU]
    # Rings that share a processor are not pinned to it one by one.
    cpu = SERVER_CPU if rings == 1 else None
    server = Server(f"--cores={rings}", *([] if rings <= 2 else ["--pin=false"]), cpu=cpu)
    before = {what: server.metric(metric) for what, metric in COUNTED.items()}
    figures = measured(server, name, path, *load.split(), *pinned, "--duration", seconds, "--warmup", 0.5)
    # Of the whole run, and so is what they are divided by.
    count = server.metric(messages)
    counted = {what: (server.metric(metric) - before[what]) / count for what, metric in COUNTED.items()}
    server.end()
    published = figures["published"] or figures["messages"]
    per_delivery = figures["server"]["cpu_us_per_message"]
    return {
        "cpu_us": per_delivery * figures["messages"] / published,
        "per_s": published / figures["elapsed_s"],
        "p50_us": figures["latency_us"]["p50"],
        **counted,
    }


def medians(samples):
    return {what: statistics.median(sample[what] for sample in samples) for what in samples[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rows", default="")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    wanted = [part.strip() for part in arguments.rows.split(",")]
    rows = [row for row in ROWS if any(part in row[0] for part in wanted)]
    if arguments.list:
        return print("\n".join(name for name, *_ in rows))
    found = {}
    for name, scenario, load, _ in rows:
        samples = {rings: [] for rings in RINGS}
        for _ in range(arguments.rounds):
            for rings in RINGS:
                samples[rings].append(sample(rings, scenario, load, arguments.seconds))
        found[name] = {rings: medians(of) for rings, of in samples.items()}
    print(f"{'':<24}{'rings':>6}{'us/message':>12}{'x one ring':>12}{'messages/s':>12}{'p50 us':>10}{'enters':>9}{'wakes':>9}{'letters':>9}")
    for name, by_rings in found.items():
        for rings, of in by_rings.items():
            ratio = of["cpu_us"] / by_rings[1]["cpu_us"]
            print(
                f"{name if rings == 1 else '':<24}{rings:>6}{of['cpu_us']:>12.2f}{ratio:>12.2f}{of['per_s']:>12,.0f}"
                f"{of['p50_us']:>10.0f}{of['enters']:>9.3f}{of['wakes']:>9.3f}{of['letters']:>9.3f}"
            )
    print()
    heading()
    for name, _, _, bar in rows:
        if bar:
            rings, bar_us = bar
            took = found[name][rings]["cpu_us"]
            row(f"{name}, {rings} ring{'s' if rings > 1 else ''}: us of CPU", f"{took:.1f}", f"<= {bar_us}", took <= bar_us)
    finish()


main()
