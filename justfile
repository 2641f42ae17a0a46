# `just` lists the recipes. None does what a plain command could not: they are the ones worth remembering.

# Where `services` keeps its settings and data; not below target/, where `cargo clean` would take them from running servers.
services_dir := env_var_or_default("TMPDIR", "/tmp") / "usher-services"

_default:
    @just --list --unsorted

# Everything on this machine in one process, with no service, key or file needed
up *options:
    cargo run --release -- up {{ options }}

# The tests; those of Kafka and Postgres want `services`
test *options:
    cargo test --locked {{ options }}

# Break everything again and again, for about twenty minutes; the report is printed and kept in target/chaos
chaos *options:
    .ci/services.sh jars
    USHER_TEST_KAFKA_LIBS="{{ justfile_directory() }}/target/ci/kafka-libs" USHER_CHAOS=full \
        cargo test --locked --release --test chaos {{ options }}

# What one user's trouble costs all others, in about ten minutes; prints a table for each pair
fairness *options:
    cargo test --locked --release --test fairness {{ options }} -- --ignored --test-threads 1

# A backlog of 5,000 mails on an account of 50/s, by three replicas, one of which is killed; needs Kafka and Postgres
quotas *options:
    USHER_QUOTA_MAILS=5000 cargo test --locked --release --test quotas {{ options }}

# Ten thousand signups with every flow on while every destination fails now and then; in about ten minutes
signups *options:
    USHER_SIGNUPS="${USHER_SIGNUPS:-10000}" cargo test --locked --release --test signups {{ options }} -- --test-threads 1

# A million events that came while nobody worked: how fast they are done, and in how much memory
backlog *options:
    USHER_BACKLOG="${USHER_BACKLOG:-1000000}" cargo test --locked --release --test backlog {{ options }} -- --ignored --test-threads 1

# A million runs that wait in Postgres and a hundred thousand in SQLite: what they cost, and whether 10,000 of a minute go out in it
waiting *options:
    cargo test --locked --release --test waiting {{ options }} -- --ignored --test-threads 1

# How fast and how lean it is beside others, in ratios from one run; wants `services`. `--quick` shows that it works
bench *options:
    cargo run --locked --release -p usher-bench -- {{ options }}

# Random inputs for what reads texts from outside, for ten minutes each or as many seconds as given: `just fuzz 60 body`
fuzz seconds="600" *targets:
    fuzz/run {{ seconds }} {{ targets }}

# What a change must pass before it is merged
verify:
    cargo fmt --all --check
    .ci/services.sh typos
    .ci/services.sh deny
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target/fuzz --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
    cargo test --locked

# Start real Kafka, Postgres and stripe-mock for the tests: eval "$(just services)"
services:
    @.ci/services.sh up "{{ services_dir }}"

# Stop them and delete their data
services-down:
    @.ci/services.sh down "{{ services_dir }}"

# Let somebody else's program judge: stripe-mock, smtp (aiosmtpd), sdks (the destinations' own, against the doubles) or postgres
judge what:
    .ci/services.sh judge {{ what }}

# What is installed without building: an archive and a Debian package in target/dist; `just dist image`: the image
dist *what:
    deploy/dist.sh {{ what }}

# The documentation as a book, in target/book
book:
    .ci/services.sh book

# What CI runs, services and all
ci:
    bash .ci/run
