#!/usr/bin/env bash
# Gives the module another path: PATH of `make module PATH=example.com/kv`. go.mod has it, and all
# that imports it follows.
set -euo pipefail
cd "$(dirname "$0")/../.."
new="${1:-}"
old="$(sed -n 's/^module //p' go.mod)"
if ! [[ "$new" =~ ^[a-z0-9-]+(\.[a-z0-9-]+)+(/[A-Za-z0-9._~-]+)+$ ]]; then
  echo "\"$new\" is no path that go get could resolve: write HOST/NAME, such as make module PATH=example.com/kv" >&2
  exit 2
fi
from="${old//./\\.}"
sed -i "s#^module $from\$#module $new#" go.mod
sed -i "s#^module $from/bench\$#module $new/bench#; s#^\(\s*\)$from v0#\1$new v0#; s#^replace $from => #replace $new => #" bench/go.mod
find . -name '*.go' -not -path './bin/*' -exec grep -lE "\"$from(/| =>)|[^/[:alnum:]]$from/cli\.Version" {} + |
  xargs sed -i "s#\"$from/#\"$new/#g; s#$from => #$new => #g; s#\([^/[:alnum:]]\)$from/cli\.Version#\1$new/cli.Version#g"
sed -i "s#\([\"\` ]\)$from/actors#\1$new/actors#g" README.md
echo "the module is $new; go.mod says so, and make test shows that all else follows"
