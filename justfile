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

# What a change must pass before it is handed in
verify:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
    cargo test --locked

# Start real Kafka and Postgres for the tests: eval "$(just services)"
services:
    @.ci/services.sh up "{{ services_dir }}"

# Stop them and delete their data
services-down:
    @.ci/services.sh down "{{ services_dir }}"

# What CI runs, services and all
ci:
    bash .ci/run
