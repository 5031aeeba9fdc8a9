#!/bin/sh
# What an idle connection costs the server: resident bytes above the empty server, on one core.
#
#   cargo build --release && benches/idle_memory.sh [CONNECTIONS]
#
# The kernel's own memory for the sockets is not in it. Fails above 300 bytes.
set -eu

cd "$(dirname "$0")/.."
connections=${1:-10000}
bytes_max=300
bin=${CARGO_TARGET_DIR:-target}/release
work=$(mktemp -d)
: >"$work/out"
ulimit -n "$(ulimit -H -n)"
"$bin/ringwire" --addr=127.0.0.1:0 --cores=1 --log=warn >"$work/out" &
server=$!
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
until grep -q listening "$work/out"; do sleep 0.05; done
url=$(sed -n 's/^ringwire listening on \([^ ,]*\).*/\1/p' "$work/out")
rss() { awk '/^Rss:/ { print $2 * 1024 }' /proc/$server/smaps_rollup; }

# Receive buffers belong to the core and not to its connections: touch those in circulation first.
cold=$(rss)
"$bin/ringwire-loadtest" echo --url "$url/echo" --connections 16 --size 16384 --duration 1 >/dev/null
sleep 0.5
echo "empty: $cold bytes at first, $(rss) once it has served"
for round in 1 2; do
    before=$(rss)
    "$bin/ringwire-loadtest" connect --url "$url/echo" --connections "$connections" --hold 4 >"$work/load" &
    load=$!
    # After the last handshake, and before they go.
    until [ "$(grep -c . /proc/$load/net/tcp 2>/dev/null || echo 0)" -gt "$connections" ]; do sleep 0.1; done
    sleep 2
    open=$(rss)
    wait $load || { cat "$work/load"; exit 1; }
    sleep 1
    after=$(rss)
    each=$(((open - before) / connections))
    echo "round $round: $connections idle connections: $before bytes before, $open with, $after after;" \
        "$each bytes per connection"
    # The first round is the measure: later ones reuse its memory.
    if [ $round = 1 ] && [ $each -gt $bytes_max ]; then
        echo "FAILED: more than $bytes_max bytes"
        status=1
    fi
done
exit ${status:-0}
