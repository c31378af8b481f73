#!/bin/sh
# What dialyzer finds in the Elixir package: nothing. The types of OTP and Elixir are collected once, in two and a half minutes,
# into target/dialyzer.
set -eu
cd "$(dirname "$0")/.."
scripts/setup-elixir.sh
if ! command -v dialyzer > /dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "no dialyzer: install it (Debian: apt-get install erlang-dialyzer)" >&2
        exit 1
    fi
    apt-get install --yes --no-install-recommends erlang-dialyzer
fi
target=${CARGO_TARGET_DIR:-$PWD/target}
# One for each version, for what another was collected from is none.
plt=$target/dialyzer/$(elixir -e 'IO.write(System.version() <> "-otp-" <> System.otp_release())').plt
elixir=$(dirname "$(elixir -e 'IO.write(:code.lib_dir(:elixir))')")
ERL_FLAGS="-pa $elixir/elixir/ebin"
export ERL_FLAGS
if ! [ -f "$plt" ]; then
    mkdir -p "$target/dialyzer"
    dialyzer --build_plt --output_plt "$plt.new" --apps erts kernel stdlib crypto ssl public_key \
        -r "$elixir/elixir/ebin" "$elixir/logger/ebin" "$elixir/mix/ebin" || [ $? = 2 ] # what Elixir itself is warned of
    mv "$plt.new" "$plt"
fi
# Mix asks for the NIF, dialyzer does not look at it: any that was built will do.
if [ -z "${PYREX_NIF_PATH:-}" ]; then
    cargo build --release --workspace --lib --tests --features pyrex-nif/test-util
    PYREX_NIF_PATH=$target/release/libpyrex_nif.so
    export PYREX_NIF_PATH
fi
cd elixir
MIX_ENV=dev mix compile
# The libraries that Pyrex uses if they are there, :telemetry and Plug, are not. OTP 26 and later ask to be told.
unknown=$(dialyzer --help | grep -q no_unknown && echo -Wno_unknown || true)
exec dialyzer --plt "$plt" $unknown -Wunmatched_returns _build/dev/lib/pyrex/ebin
