#!/bin/sh
# Restarts all nodes of a cluster one by one, each on its own directory, the leader last,
# while the cluster serves. After each node it looks at the cluster again, and compares what
# the members hold; it stops at whatever is not as it should be.
#
#   examples/rolling-upgrade.sh            nodes of kvctl dev
#   RESTART='ssh $NODE systemctl restart keyval' examples/rolling-upgrade.sh
#
# RESTART is run by sh with NODE, ADDRESS and PID of the node in its environment, and has to
# start the new version. KVCTL is the kvctl to run, KVCTL_ENDPOINTS the cluster.
set -eu
kvctl=${KVCTL:-kvctl}
export KVCTL="$kvctl"
restart=${RESTART:-'"$KVCTL" dev stop "$NODE" && "$KVCTL" dev start "$NODE"'}

"$kvctl" cluster health
leader=$("$kvctl" cluster leader -o simple | cut -f 1)
nodes=$("$kvctl" cluster members -o simple | cut -f 1 | grep -vx "$leader")
for node in $nodes $leader; do
	echo "== $node"
	"$kvctl" cluster upgrade --next --node "$node" --run "$restart"
	"$kvctl" verify
done
echo "== all nodes run again"
"$kvctl" cluster health
"$kvctl" cluster level
