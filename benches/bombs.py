#!/usr/bin/env python3
"""What messages do that are small on the wire and vast when they are inflated: to the server's memory, and to everybody else.

    cargo build --release -p ringwire && benches/bombs.py [--quick]

16 MiB of zeros are 16 KiB compressed. They are sent 10,000 times, on 100 connections at a time, in one frame, in fragments of 100
bytes, and as what a message is inflated to (which is then bytes like any other). Prints a table and exits 1 when a bar is missed:

- each bomb is refused with 1009, and each message that has one in it is answered;
- memory never grows beyond what one message of a core may take (RINGWIRE_MAX_MESSAGE) and what waits of those under way;
- the 99th percentile of another connection's echoes stays within twice what it is beside as many connections, made as fast,
  that send 16 KiB which nothing could compress.

Server and client have a processor each, so run it on an idle machine. `tests/deflate.rs` has the bound of memory in small.
"""

import argparse
import multiprocessing
import os
import statistics
import time
import zlib

from common import CLIENT_CPU, SERVER_CPU, Server, WebSocket, finish, frame, heading, p99, row

AT_ONCE = 100
MESSAGE_BYTES_MAX = 16 << 20
# One message of the core, while it grows twice; and what has come of each of the others.
GROWTH_BYTES_MAX = 2 * MESSAGE_BYTES_MAX + AT_ONCE * (64 << 10)
OFFER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
RSV1 = 0x40


def deflated(payload):
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    # RFC 7692 7.2.1: without the last four bytes.
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def fragments(payload, size):
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    firsts = [(0x02 | RSV1 if at == 0 else 0) | (0x80 if at == len(parts) - 1 else 0) for at in range(len(parts))]
    return b"".join(frame(first, part) for first, part in zip(firsts, parts))


BOMB = deflated(bytes(16 << 20))
NOISE = os.urandom(len(BOMB))
# By name: the bytes, and whether it is refused.
FORMS = {
    "in one frame": (frame(0x82 | RSV1, BOMB), True),
    "in fragments": (fragments(BOMB, 100), True),
    "in a message": (frame(0x82 | RSV1, deflated(BOMB)), False),
}
HARMLESS = {"harmless": (frame(0x82, NOISE), False)}


def flood(server, forms, count, told):
    """Sends so many, each on a connection of its own, a hundred of them at a time; tells how many went as they should."""
    os.sched_setaffinity(0, {int(CLIENT_CPU)})
    right, forms = 0, list(forms.values())
    for begun in range(0, count, AT_ONCE):
        sockets = [WebSocket(server.connect(), offer=OFFER) for _ in range(AT_ONCE)]
        for number, one in enumerate(sockets):
            one.socket.sendall(forms[(begun + number) % len(forms)][0])
        for number, one in enumerate(sockets):
            first, payload = one.frame()
            is_refused = first == 0x88 and payload[:2] == (1009).to_bytes(2, "big")
            is_answered = first & 0x0F == 0x02
            right += is_refused if forms[(begun + number) % len(forms)][1] else is_answered
            one.socket.close()
    told.put(right)


def beside(server, echo, forms, count):
    """Percentile of an echo in microseconds, meanwhile; how many went right; and how long it took."""
    # A process of its own: two threads of one would wait for each other.
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    flooding = context.Process(target=flood, args=(server, forms, count, told))
    took, began = [], time.monotonic()
    flooding.start()
    while flooding.is_alive():
        took.append(echo.ask())
        time.sleep(0.001)
    flooding.join()
    return p99(took), told.get(), time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the bombs, in one round: for trying it out")
    rounds, count = (1, 1_000) if parser.parse_args().quick else (3, 10_000)
    server = Server("--deflate=stateless", f"--max-message={MESSAGE_BYTES_MAX}", cpu=SERVER_CPU, purges=True)
    echo = WebSocket(server.connect())
    # Memory that is kept for use is taken the first time.
    beside(server, echo, FORMS, AT_ONCE)
    heading()
    harmless, bombs, growths, right = [], [], [], 0
    for _ in range(rounds):
        harmless.append(beside(server, echo, HARMLESS, count // rounds)[0])
        server.forget_peak()
        before, cpu_s = server.rss_bytes(), server.cpu_s()
        each, went, seconds = beside(server, echo, FORMS, count // rounds)
        growths.append(server.rss_peak_bytes() - before)
        bombs.append(each)
        right += went
        print(f"{count // rounds / seconds:,.0f} a second, {(server.cpu_s() - cpu_s) / (count // rounds) * 1e6:,.0f} us of the server's each")
    sent = count // rounds // AT_ONCE * AT_ONCE
    sent = rounds * (sent + (AT_ONCE if count // rounds % AT_ONCE else 0))
    row(f"{sent:,} bombs: answered as they should be", f"{right:,}", f"{sent:,}", right == sent)
    growth = max(growths)
    row("  most that memory grew by", f"{growth / 1024:,.0f} KiB", f"<= {GROWTH_BYTES_MAX >> 10:,} KiB", growth <= GROWTH_BYTES_MAX)
    held = server.metric("ringwire_partial_bytes") + server.metric("ringwire_outbox_bytes")
    # The request that asks is counted itself.
    row("  bytes that are held when they have gone", f"{held:,.0f}", "<= 4,096", held <= 4096)
    during, other = statistics.median(bombs), statistics.median(harmless)
    row("  99th percentile of an echo meanwhile", f"{during:,.0f} us", f"<= 2 x {other:,.0f} us", during <= 2 * other)
    server.end()
    finish()


if __name__ == "__main__":
    main()
