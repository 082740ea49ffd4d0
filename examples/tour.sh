#!/bin/sh
# Plays README's tour on a cluster of its own, under load, and shows each command with what it
# says: three nodes, one of them killed, a plan, another put in its place, the dead one back.
#
#   examples/tour.sh                      with kvctl on the PATH
#   KVCTL=bin/kvctl examples/tour.sh      PORT=7001: the first of four ports
#
# docs/SESSION.txt is what it said once: make session.
set -eu
kvctl=$(command -v "${KVCTL:-kvctl}")
kvctl=$(cd "$(dirname "$kvctl")" && pwd)/$(basename "$kvctl")
port=${PORT:-7001}
dir=$(mktemp -d)
mkdir "$dir/bin"
ln -s "$kvctl" "$dir/bin/kvctl"
PATH="$dir/bin:$PATH"
KVCTL_ENDPOINTS=127.0.0.1:$port,127.0.0.1:$((port + 1)),127.0.0.1:$((port + 2))
export PATH KVCTL_ENDPOINTS
cd "$dir"

# play shows a command line, and runs it.
play() {
	printf '$ %s\n' "$*"
	sh -c "$*" 2>&1 || printf '(exit code %d)\n' $?
}

kvctl dev --data cluster --base-port "$port" >dev.log 2>&1 &
dev=$!
trap 'kill -INT $dev 2>/dev/null; wait $dev || :; rm -rf "$dir"' EXIT
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
	kvctl cluster health >/dev/null 2>&1 && break
	sleep 1
done

echo "# kvctl dev runs three nodes. Clients write 200 times a second in all, until the end."
kvctl bench --rate 200 --clients 16 --warmup 0s --duration "${LOAD:-15s}" >load.txt 2>&1 &
load=$!
play kvctl put greeting hello
play kvctl get greeting
play kvctl cluster members
echo "# node2's machine dies."
pid=$(kvctl status --json | tr -d '\n' | sed 's/.*"name": "node2"[^}]*"pid": \([0-9]*\).*/\1/')
play kill -9 "$pid"
sleep 1
play kvctl cluster health
echo "# Another node waits. What would a replace do, and who may be lost meanwhile?"
play kvctl dev add node4 --data cluster
play kvctl cluster replace node2 node4 127.0.0.1:$((port + 3)) --plan >plan.txt
cat plan.txt
echo "# The plan is good."
play kvctl cluster replace --plan "$(sed -n 's/.* --plan \(plan:[a-z2-7]*\).*/\1/p' plan.txt)"
play kvctl cluster members
play kvctl cluster health
echo "# The dead node comes back."
play kvctl dev start node2 --data cluster
sleep 2
play tail -n 1 cluster/node2.log
play kvctl ops ls
play kvctl get greeting
play kvctl verify
wait $load || :
echo "# What the clients saw of it all:"
play cat load.txt
