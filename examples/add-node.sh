#!/bin/sh
# Adds a node to a KeyVal cluster, and returns when it votes.
#
#   add-node.sh NAME HOST:PORT
#
# The node may run already (kvctl serve --join ...) or be started meanwhile: the command for
# that is shown. KVCTL_ENDPOINTS names nodes of the cluster, KVCTL the command, and TIMEOUT
# bounds the wait (10m). The exit code is that of the step that went wrong; what the cluster
# has begun goes on by itself.
set -u

kvctl=${KVCTL:-kvctl}
timeout=${TIMEOUT:-10m}

say() { printf '%s\n' "$*"; }
fail() { # CODE TEXT
	code=$1
	shift
	printf 'add-node: %s\n' "$*" >&2
	exit "$code"
}

[ $# -eq 2 ] || fail 2 "usage: add-node.sh NAME HOST:PORT"
name=$1
address=$2

say "1. Is the cluster well?"
"$kvctl" cluster health
code=$?
[ $code -eq 0 ] || fail $code "the cluster is not well: mend that first, or add the node by hand: $kvctl cluster add $name $address"

say "2. What would change?"
"$kvctl" cluster add "$name" "$address" --dry-run || fail $? "$name cannot be added: see above"

say "3. Add $name at $address, wait until it has caught up, and make it a voter."
"$kvctl" cluster add "$name" "$address" --progress plain --timeout "$timeout" >/dev/null ||
	fail $? "$name is no voter yet: see above how to follow the operation or give it up"

say "4. Is it done?"
type=$("$kvctl" cluster member "$name" -o simple | cut -f3)
[ "$type" = voter ] || fail 1 "$name is a ${type:-stranger}, and no voter: $kvctl cluster members"
"$kvctl" cluster members
"$kvctl" cluster health || fail $? "$name was added, and the cluster is not well now"
say "$name at $address is a voter."
