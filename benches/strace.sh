#!/bin/sh
# Which system calls the server makes while it serves: io_uring_enter and nothing that polls.
#
#   cargo build --release && benches/strace.sh
#
# Traces the release server from after its start to the end of an echo load and a broadcast load, prints the table of
# each, and fails if it waited by epoll, poll or select, or if anything but io_uring_enter was called per message.
set -eu

cd "$(dirname "$0")/.."
command -v strace >/dev/null || { echo "strace is not installed: skipped"; exit 0; }
bin=${CARGO_TARGET_DIR:-target}/release
work=$(mktemp -d)
: >"$work/out"
"$bin/ringwire" --addr=127.0.0.1:0 --cores=2 --log=warn >"$work/out" &
server=$!
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
until grep -q listening "$work/out"; do sleep 0.05; done
url=$(sed -n 's/^ringwire listening on \([^ ,]*\).*/\1/p' "$work/out")

status=0
# Name, most calls of anything else that connections and memory may need, then the load.
trace() {
    name=$1 others_max=$2
    shift 2
    strace -f -c -U name,calls,errors -o "$work/$name" -p $server 2>/dev/null &
    tracer=$!
    sleep 0.5
    "$bin/ringwire-loadtest" "$@" >"$work/load" || { cat "$work/load"; status=1; }
    kill -INT $tracer
    wait $tracer || true
    echo "== $name: ringwire-loadtest $*"
    cat "$work/$name"
    if grep -E '^(epoll_|poll|ppoll|select|pselect)' "$work/$name"; then
        echo "FAILED: it polls"
        status=1
    fi
    others=$(awk '$1 ~ /^[a-z_0-9]+$/ && $1 !~ /^(io_uring_enter|syscall|total)$/ { sum += $2 } END { print sum + 0 }' \
        "$work/$name")
    if [ "$others" -gt "$others_max" ]; then
        echo "FAILED: $others calls beside io_uring_enter"
        status=1
    fi
}

trace echo 200 echo --url "$url/echo" --connections 64 --duration 3
trace broadcast 200 fanout --url "$url/broadcast" --subscribers 200 --duration 3
exit $status
