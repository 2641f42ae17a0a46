#!/usr/bin/env bash
# Makes what is installed without building, for the platform that this runs on, in target/dist:
#
#   usher-VERSION-TRIPLE.tar.gz   the program, completions, man page, flows, systemd units, licence
#   usher_VERSION_ARCH.deb        the same as a Debian package; only where dpkg-deb is installed
#   SHA256SUMS                    of both
#
#   dist.sh          builds and packs
#   dist.sh image    builds the image usher:VERSION and usher:local
#
# There is one program: `usher-ingest` and `usher-dispatcher` are names of it, by which it is the services. It needs glibc of
# the machine that built it or newer, OpenSSL 3 and zlib. DIST_PROGRAM names a program that is built already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
[[ -n $version ]] || { echo "dist: Cargo.toml has no version" >&2; exit 1; }

if [[ ${1:-} == image ]]; then
  DOCKER_BUILDKIT=1 exec docker build --file deploy/Dockerfile --tag "usher:$version" --tag usher:local .
fi
[[ $# == 0 ]] || { echo "usage: dist.sh [image]" >&2; exit 64; }

triple=$(rustc -vV | sed -n 's/^host: //p')
dist=target/dist
name=usher-$version-$triple
program=${DIST_PROGRAM:-}
if [[ -z $program ]]; then
  cargo build --release --locked --package usher-cli --bin usher --features kafka-tls
  program=${CARGO_TARGET_DIR:-target}/release/usher
fi

# asked WORDS...: what the program answers. Without the environment, in which there may be settings for another one.
asked() { env -i "$program" "$@"; }
# offers COMMAND: true if the program has it.
offers() { asked help "$1" >/dev/null 2>&1; }

# The same files for all, below a folder as they are below /usr.
rm -rf "$dist"
tree=$dist/tree
install -D --strip --mode=755 "$program" "$tree/bin/usher"
ln -s usher "$tree/bin/usher-ingest"
ln -s usher "$tree/bin/usher-dispatcher"
if offers completions; then
  for shell in bash zsh fish; do
    case $shell in
      bash) file=bash-completion/completions/usher ;;
      zsh) file=zsh/vendor-completions/_usher ;;
      fish) file=fish/vendor_completions.d/usher.fish ;;
    esac
    mkdir -p "$tree/share/$(dirname "$file")"
    asked completions "$shell" >"$tree/share/$file"
  done
fi
if offers man; then
  mkdir -p "$tree/share/man/man1"
  # A page for each command, from a program that has them apart.
  asked man --to "$tree/share/man/man1" 2>/dev/null || asked man >"$tree/share/man/man1/usher.1"
fi
mkdir -p "$tree/share/usher" "$tree/share/doc/usher"
cp -r flows "$tree/share/usher/flows"
cp -r docs "$tree/share/doc/usher/docs"
install --mode=644 LICENSE README.md CHANGELOG.md "$tree/share/doc/usher"
# Nobody's umask decides who may read it.
chmod -R u=rwX,go=rX "$tree"

# Owners and times are those of nobody and of the last commit, so that the same source gives the same files.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
archive() {
  tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --directory="$dist" "$1" | gzip -9n
}

cp -r "$tree" "$dist/$name"
install -D --mode=644 --target-directory="$dist/$name/share/usher/systemd" deploy/systemd/*.service deploy/debian/usher.env
archive "$name" >"$dist/$name.tar.gz"
rm -r "${dist:?}/$name"

made=("$name.tar.gz")
if command -v dpkg-deb >/dev/null; then
  package=$dist/deb
  mkdir -p "$package/DEBIAN"
  cp -r "$tree" "$package/usr"
  find "$package/usr/share/man" -name '*.1' -exec gzip -9n {} + 2>/dev/null || true
  mv "$package/usr/share/doc/usher/LICENSE" "$package/usr/share/doc/usher/copyright"
  install -D --mode=644 --target-directory="$package/usr/lib/systemd/system" deploy/systemd/*.service
  install -D --mode=640 deploy/debian/usher.env "$package/etc/usher/usher.env"
  install --mode=755 deploy/debian/{postinst,prerm,postrm} "$package/DEBIAN"
  echo /etc/usher/usher.env >"$package/DEBIAN/conffiles"
  # The glibc that the program asks for, by the newest of its versioned symbols.
  glibc=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
  cat >"$package/DEBIAN/control" <<CONTROL
Package: usher
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: The Usher developers <usher@localhost>
Installed-Size: $(du -sk "$package" | cut -f 1)
Depends: libc6 (>= ${glibc#GLIBC_}), libgcc-s1, libssl3 | libssl3t64, zlib1g, ca-certificates, passwd
Section: net
Priority: optional
Description: Carries Clerk's webhooks to email, billing and databases
 Usher verifies the webhooks of Clerk, keeps them in Kafka or in a file, and
 carries out what follows from them: in order per user, within each provider's
 rate limits, each effect once.
CONTROL
  deb=usher_${version}_$(dpkg --print-architecture).deb
  dpkg-deb --root-owner-group -Zxz --build "$package" "$dist/$deb" >/dev/null
  rm -r "$package"
  made+=("$deb")
fi
rm -r "$tree"
(cd "$dist" && sha256sum "${made[@]}" >SHA256SUMS && ls -l)
