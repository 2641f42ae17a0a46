#!/usr/bin/env bash
# Real Kafka and Postgres on free loopback ports, for the tests and for trying things by hand; and stripe-mock.
#
#   services.sh judge WHAT  lets one of them judge what we send or show: stripe-mock, smtp, sdks, browser or postgres; stops it afterwards
#   services.sh up DIR      starts them; prints the variables that name them, and keeps them in DIR/env
#   services.sh down DIR    stops them and deletes what they wrote
#   services.sh jars        only fetches the broker's jars
#   services.sh missing     names the Debian packages that are not there yet
#   services.sh typos       checks spelling and vocabulary
#   services.sh book        builds the documentation as a book, into target/book
#   services.sh deny        checks licences, versions and sources of dependencies
#   services.sh advisories  compares dependencies with RustSec's advisories, which it fetches from GitHub
#
# Only the `export` lines go to standard output, so that `eval "$(services.sh up DIR)"` works.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*" >&2; }
die() { say "services: $*"; exit 1; }

# die_with LOG WORDS: the end of LOG is what tells why.
die_with() { tail -n 30 "$1" >&2 || true; shift; die "$*"; }

require() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || die "$program is not installed"
  done
}

# retry TIMES COMMAND...: for registries, which have their moments.
retry() {
  local left=$1
  shift
  until "$@"; do
    left=$((left - 1))
    if ((left == 0)); then return 1; fi
    say "trying again: $1"
  done
}

# free_port NAME: puts a free port into the variable NAME. Below 32768, where the system begins to take ports for outgoing
# connections and for servers that asked for any: so nothing takes it between here and the server's start.
taken=' '
free_port() {
  local port
  for _ in {1..100}; do
    port=$((20000 + RANDOM % 12000))
    if [[ $taken != *" $port "* ]] && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      taken+="$port "
      printf -v "$1" '%s' "$port"
      return
    fi
  done
  die "no free port was found"
}

# await SECONDS ALIVE... -- READY...: until READY succeeds; fails when time is up or ALIVE no longer holds.
await() {
  local deadline=$((SECONDS + $1)) alive=()
  shift
  while [[ $1 != -- ]]; do alive+=("$1"); shift; done
  shift
  until "$@"; do
    if ((SECONDS >= deadline)) || ! "${alive[@]}"; then return 1; fi
    sleep 0.1
  done
}

source "$root/.ci/kafka.sh"
source "$root/.ci/postgres.sh"
source "$root/.ci/others.sh"

up() {
  mkdir -p "$1"
  local dir
  dir=$(cd "$1" && pwd)
  # The env file is for sourcing: nobody else's.
  [[ -O $dir ]] || die "$dir belongs to somebody else"
  # The same ports for the same folder, if they are free: Cargo compiles tests again when a variable that they look at
  # has changed.
  RANDOM=$(cksum <<<"$dir" | cut -d ' ' -f 1)
  if [[ -e $dir/env ]] && kafka_running "$dir" && postgres_running "$dir"; then
    say "already running"
    cat "$dir/env"
    return
  fi
  [[ -e $dir/usher-services || -z $(ls -A "$dir") ]] || die "$dir holds something else"
  down "$dir"
  kafka_jars
  mkdir -p "$dir"
  touch "$dir/usher-services"
  # A name of its own: the trap may run inside a function that has another `dir`.
  half_up=$dir
  trap 'down "$half_up"' EXIT
  postgres_up "$dir"
  pgbouncer_up "$dir"
  kafka_up "$dir"
  stripe_mock_up "$dir"
  sdks_up
  browser_up
  trap - EXIT
  cat >"$dir/env" <<ENV
export USHER_TEST_KAFKA=127.0.0.1:$kafka_port
export USHER_TEST_POSTGRES=postgres://postgres@127.0.0.1:$postgres_port/postgres
export USHER_TEST_PGBOUNCER=postgres://postgres@127.0.0.1:$pgbouncer_port/postgres
export USHER_TEST_KAFKA_LIBS=$(printf '%q' "$kafka_libs")
export USHER_TEST_STRIPE_MOCK=$stripe_mock_address
export USHER_TEST_SMTP=$(printf '%q' "$(mail_python)")
export USHER_TEST_FAKETIME=$(faketime_library)
export USHER_TEST_SDKS=$(printf '%q' "$sdks")
export USHER_TEST_BROWSER=$(printf '%q' "$browser_walk")
ENV
  cat "$dir/env"
}

# Also after a start that got only half way. Deletes nothing in a directory that `up` did not make its own.
down() {
  local dir
  dir=$(cd "$1" 2>/dev/null && pwd) || return 0
  [[ -e $dir/usher-services ]] || return 0
  stripe_mock_down "$dir"
  kafka_down "$dir"
  postgres_down "$dir"
  rm -rf "$dir"
}

missing() {
  if [[ -z $(postgres_bin) ]]; then echo postgresql; fi
  if ! command -v pgbouncer >/dev/null; then echo pgbouncer; fi
  if ! command -v kcat >/dev/null; then echo kcat; fi
  if ! command -v valgrind >/dev/null; then echo valgrind; fi
  if ! command -v ps >/dev/null; then echo procps; fi
  # With promtool and amtool. Tests start servers of their own.
  if ! command -v promtool >/dev/null; then echo prometheus; fi
  if ! command -v amtool >/dev/null; then echo prometheus-alertmanager; fi
  if [[ -z $(mail_python) ]]; then echo python3-aiosmtpd; fi
  if [[ -z $(faketime_library) ]]; then echo libfaketime; fi
  # For the walk through the console.
  if ! command -v chromium >/dev/null; then echo chromium; fi
  # For the build with TLS to Kafka.
  if ! pkg-config --exists openssl 2>/dev/null; then echo libssl-dev pkg-config; fi
  if ! python3 -c 'import ensurepip' 2>/dev/null; then echo python3-venv; fi
}

# Runs the tests of what we send against one service of somebody else's.
judge() {
  local what=$1 tests
  # Most of them stand beside the code.
  local where=(--package usher-connectors --lib)
  dir_of_judge=$(mktemp -d "${TMPDIR:-/tmp}/usher-judge.XXXXXX")
  touch "$dir_of_judge/usher-services"
  trap 'down "$dir_of_judge"' EXIT
  case "$what" in
    stripe-mock)
      require go
      stripe_mock_up "$dir_of_judge"
      export USHER_TEST_STRIPE_MOCK=$stripe_mock_address
      tests=stripe::tests::stripe_mock
      ;;
    smtp)
      USHER_TEST_SMTP=$(mail_python)
      [[ -n $USHER_TEST_SMTP ]] || die "no Python has aiosmtpd: install python3-aiosmtpd, or name one in USHER_TEST_SMTP"
      export USHER_TEST_SMTP
      tests=smtp::
      ;;
    sdks)
      require node npm
      sdks_up
      export USHER_TEST_SDKS=$sdks
      where=(--package usher-tests --test e2e) tests=sdks::
      ;;
    browser)
      require node npm chromium
      browser_up
      export USHER_TEST_BROWSER=$browser_walk
      where=(--package usher-tests --test e2e) tests=scenarios::browser
      ;;
    postgres)
      postgres_up "$dir_of_judge"
      export USHER_TEST_POSTGRES=postgres://postgres@127.0.0.1:$postgres_port/postgres
      tests=database::
      ;;
    *) die "judge takes stripe-mock, smtp, sdks, browser or postgres" ;;
  esac
  cd "$root"
  # A judge that is asked about nothing has not agreed.
  cargo test --locked "${where[@]}" ${tests:+"$tests"} -- --list | grep -c ': test$' >&2 || die "no test is named ${tests:-so}"
  cargo test --locked "${where[@]}" ${tests:+"$tests"}
}

case "${1:-} $#" in
  'judge 2') judge "$2" ;;
  'up 2') up "$2" ;;
  'down 2') down "$2" ;;
  'jars 1') kafka_jars ;;
  'missing 1') missing ;;
  'typos 1')
    typos_install
    cd "$root" && exec "$program"
    ;;
  'book 1') book ;;
  'deny 1')
    deny_install
    cd "$root" && exec "$program" --locked check licenses bans sources
    ;;
  'advisories 1')
    deny_install
    cd "$root" && exec "$program" --locked check advisories
    ;;
  *) die "usage: services.sh judge WHAT | up DIR | down DIR | jars | missing | typos | book | deny | advisories" ;;
esac
