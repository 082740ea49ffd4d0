#!/bin/sh
# Replaces a node, dead or alive, by a new one, and checks what comes of it.
#
#   examples/replace-node.sh OLD NEW NEW_ADDRESS
#
# The new node may run already (kvctl serve --join), or is started while this waits: kvctl
# prints the command. Closing this leaves the replacement running: kvctl ops ls.
# KVCTL is the kvctl to run, KVCTL_ENDPOINTS the cluster.
set -eu
if [ $# -ne 3 ]; then
	echo "usage: $0 OLD NEW NEW_ADDRESS" >&2
	exit 2
fi
kvctl=${KVCTL:-kvctl}

echo "== before"
"$kvctl" cluster members
"$kvctl" cluster replace "$1" "$2" "$3" --dry-run

echo "== replacing $1 by $2"
"$kvctl" cluster replace "$1" "$2" "$3" --yes

echo "== after"
"$kvctl" cluster members
"$kvctl" cluster health
"$kvctl" verify
