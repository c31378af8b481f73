#!/bin/sh
# The Elixir package: formatted, compiled without a warning, every test. Installs Elixir if it may.
set -eu
cd "$(dirname "$0")/.."
scripts/setup-elixir.sh
# As `make test` builds, so that nothing is built twice: without what examples and tests depend on some crates have fewer features.
cargo build --release --workspace --lib --examples --features pyrex-nif/test-util
PYREX_NIF_PATH=${CARGO_TARGET_DIR:-$PWD/target}/release/libpyrex_nif.so
export PYREX_NIF_PATH
cd elixir
mix format --check-formatted
MIX_ENV=test mix compile --warnings-as-errors
exec mix test "$@"
