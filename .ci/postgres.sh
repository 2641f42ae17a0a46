# Part of services.sh: a Postgres cluster of our own, and a connection pooler before it. DIR/postgres.data names the directory
# that holds both.

# Where the server's programs are: Debian keeps them out of PATH, one directory a version.
postgres_bin() {
  local newest
  newest=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  if [[ -x $newest/initdb ]]; then
    echo "$newest"
  elif command -v initdb >/dev/null; then
    dirname "$(command -v initdb)"
  fi
}

# The server refuses to run as root. From / because the other user may not be let into the directory we stand in.
as_postgres() {
  if [[ $(id -u) == 0 ]]; then
    (cd / && runuser -u postgres -- "$@")
  else
    "$@"
  fi
}

# Starts a server for DIR and leaves its port in postgres_port.
postgres_up() {
  local bin data log
  bin=$(postgres_bin)
  [[ -n $bin ]] || die "no Postgres server is installed (Debian: postgresql)"
  # Not below DIR, whose parents may be closed to the user postgres.
  data=$(mktemp -d "${TMPDIR:-/tmp}/usher-postgres.XXXXXX")
  echo "$data" >"$1/postgres.data"
  if [[ $(id -u) == 0 ]]; then chown postgres: "$data"; fi
  log=$data/log
  free_port postgres_port

  # Trust: it listens on the loopback interface alone, holds nothing but tests' data, and is deleted afterwards.
  as_postgres "$bin/initdb" -D "$data/cluster" -U postgres --auth=trust -E UTF8 --locale=C --no-sync \
    >"$1/initdb.log" 2>&1 || die_with "$1/initdb.log" "initdb failed"
  # fsync stays as it is: what is measured here is to be what a user gets.
  as_postgres "$bin/pg_ctl" -D "$data/cluster" -l "$log" -w -t 60 start -o \
    "-p $postgres_port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200" \
    </dev/null >&2 || die_with "$log" "Postgres did not start"
  await 30 postgres_running "$1" -- postgres_answers "$bin" || die_with "$log" "Postgres does not answer"
}

# Starts PgBouncer in transaction mode before the server, as hosted databases have it, and leaves its port in pgbouncer_port.
pgbouncer_up() {
  local data log
  command -v pgbouncer >/dev/null || die "PgBouncer is not installed (Debian: pgbouncer)"
  data=$(cat "$1/postgres.data")
  log=$data/pgbouncer.log
  free_port pgbouncer_port
  cat >"$data/pgbouncer.ini" <<INI
[databases]
* = host=127.0.0.1 port=$postgres_port user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $pgbouncer_port
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 1000
logfile = $log
pidfile = $data/pgbouncer.pid
INI
  as_postgres pgbouncer -q -d "$data/pgbouncer.ini" >&2 || die_with "$log" "PgBouncer did not start"
  await 30 true -- pgbouncer_answers "$(postgres_bin)" || die_with "$log" "PgBouncer does not answer"
}

pgbouncer_answers() {
  PGCONNECT_TIMEOUT=2 "$1/psql" -X -q -h 127.0.0.1 -p "$pgbouncer_port" -U postgres -c 'select 1' postgres \
    >/dev/null 2>&1
}

pgbouncer_down() {
  local pid
  pid=$(cat "$1/pgbouncer.pid" 2>/dev/null) || return 0
  kill "$pid" 2>/dev/null || return 0
  await 10 true -- bash -c "! kill -0 $pid 2>/dev/null" || kill -9 "$pid" 2>/dev/null || true
}

postgres_answers() {
  PGCONNECT_TIMEOUT=2 "$1/psql" -X -q -h 127.0.0.1 -p "$postgres_port" -U postgres -c 'select 1' postgres \
    >/dev/null 2>&1
}

postgres_running() {
  local data
  data=$(cat "$1/postgres.data" 2>/dev/null) || return 1
  as_postgres "$(postgres_bin)/pg_ctl" -D "$data/cluster" status >/dev/null 2>&1
}

postgres_down() {
  local data mode
  data=$(cat "$1/postgres.data" 2>/dev/null) || return 0
  pgbouncer_down "$data"
  # Fast ends open sessions; whoever hangs even so has nothing in it that anybody will miss.
  for mode in fast immediate; do
    if postgres_running "$1"; then
      as_postgres "$(postgres_bin)/pg_ctl" -D "$data/cluster" -m "$mode" -w -t 20 stop >&2 || true
    fi
  done
  if postgres_running "$1"; then die "Postgres in $data cannot be stopped"; fi
  # Never anything but what postgres_up made.
  if [[ $data == */usher-postgres.* ]]; then rm -rf "$data"; fi
}
