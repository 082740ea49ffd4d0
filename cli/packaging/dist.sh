#!/usr/bin/env bash
# Builds what is released, into dist/: static binaries, archives, Debian packages where
# dpkg-deb is there, a container image where a builder runs, and their SHA-256 sums. GO, VERSION and ARCHS come from the Makefile.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=dist
here=cli/packaging
rm -rf "$out" && mkdir -p "$out"
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
module="$(sed -n 's/^module //p' go.mod)"
# A Debian version begins with a digit.
debian="$(sed 's/^v//; s/^[^0-9]/0~&/; s/-/+/g' <<<"$VERSION")"

shared="$(mktemp -d)"
trap 'rm -rf "$shared"' EXIT
"$GO" build -ldflags "-X $module/cli.Version=$VERSION" -o "$shared/kvctl" ./cli/kvctl
"$shared/kvctl" man >"$shared/kvctl.1"
for shell in bash zsh fish; do "$shared/kvctl" completion $shell >"$shared/kvctl.$shell"; done

for arch in $ARCHS; do
  binary="$out/kvctl-linux-$arch"
  CGO_ENABLED=0 GOOS=linux GOARCH=$arch "$GO" build -trimpath -ldflags "-s -w -X $module/cli.Version=$VERSION" -o "$binary" ./cli/kvctl

  name="keyval-$VERSION-linux-$arch"
  tree="$shared/$name"
  mkdir -p "$tree"
  cp "$binary" "$tree/kvctl"
  cp LICENSE README.md CHANGELOG.md "$shared"/kvctl.{1,bash,zsh,fish} $here/keyval.service $here/node.toml "$tree/"
  tar -C "$shared" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" | gzip -9n >"$out/$name.tar.gz"

  command -v dpkg-deb >/dev/null || { echo "dpkg-deb is missing: no Debian package for $arch"; continue; }
  root="$shared/deb-$arch"
  install -D -m 0755 "$binary" "$root/usr/bin/kvctl"
  install -D -m 0644 $here/keyval.service "$root/lib/systemd/system/keyval.service"
  install -D -m 0644 $here/node.toml "$root/etc/keyval/node.toml"
  install -D -m 0644 LICENSE "$root/usr/share/doc/keyval/copyright"
  install -D -m 0644 "$shared/kvctl.bash" "$root/usr/share/bash-completion/completions/kvctl"
  install -D -m 0644 "$shared/kvctl.zsh" "$root/usr/share/zsh/vendor-completions/_kvctl"
  install -D -m 0644 "$shared/kvctl.fish" "$root/usr/share/fish/vendor_completions.d/kvctl.fish"
  install -d "$root/usr/share/man/man1" "$root/DEBIAN"
  gzip -9n <"$shared/kvctl.1" >"$root/usr/share/man/man1/kvctl.1.gz"
  sed "s/@VERSION@/$debian/; s/@ARCH@/$arch/" $here/deb/control >"$root/DEBIAN/control"
  install -m 0644 $here/deb/conffiles "$root/DEBIAN/conffiles"
  install -m 0755 $here/deb/postinst $here/deb/prerm "$root/DEBIAN/"
  dpkg-deb --root-owner-group --build "$root" "$out/keyval_${debian}_$arch.deb" >/dev/null
done
builder=""
for one in docker podman; do "$one" info >/dev/null 2>&1 && builder="$one" && break; done
if [ -n "$builder" ]; then
  for arch in $ARCHS; do
    "$builder" build --platform "linux/$arch" -f $here/Dockerfile --build-arg BINARY="$out/kvctl-linux-$arch" -t "keyval:${VERSION//+/-}-$arch" .
    "$builder" save "keyval:${VERSION//+/-}-$arch" | gzip -9n >"$out/keyval-$VERSION-image-$arch.tar.gz"
  done
else
  echo "neither docker nor podman can build here: no image; $here/Dockerfile is linted alone"
  "$GO" test ./cli -run 'TestContainerFile$' -count=1
fi
(cd "$out" && sha256sum -- * >SHA256SUMS)
ls -l "$out"
