# Every command of the project. `just` lists them; `cargo xtask help` has the options of each.

# Lists the commands
default:
    @just --list --unsorted

# Everything that a change has to pass
ci:
    .ci/run

# Runs the demo and leaves its page up
demo *args:
    cargo demo {{args}}

# Every test, with whatever it needs: a browser, another SQL engine, PostgreSQL, Kafka, S3
test *args:
    cargo xtask test {{args}}

# Formats the sources
format:
    cargo fmt --all

# Layers, cycles, sizes, words
tidy:
    cargo xtask tidy

# Advisories, licenses and sources of the dependencies
deny *args:
    cargo xtask deny {{args}}

# The Helm chart
chart:
    cargo xtask chart

# The lints
clippy:
    cargo clippy --workspace --all-targets --features throng/ballista --locked -- -D warnings

# The documentation of the crates
doc:
    cargo doc --workspace --no-deps --features throng/ballista --locked

# Writes generated files: JSON schema, golden outputs
gen:
    cargo xtask gen

# Attacks on a node, at full size; a name chooses among them
attack *name:
    cargo xtask attack {{name}}

# Starts (up) or stops (down) PostgreSQL, Kafka, S3 and a faulty proxy to develop against
services action:
    cargo xtask services {{action}}

# Runs a fuzz target (fuzz/README.md)
fuzz target seconds="60":
    cp Cargo.lock fuzz/Cargo.lock
    cargo run --manifest-path fuzz/Cargo.toml --bin seeds
    cargo +nightly fuzz run {{target}} -- -max_total_time={{seconds}}
