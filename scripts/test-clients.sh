#!/usr/bin/env bash
# The server driven by clients that this project did not write: OpenAI's for Python and for Node, curl, schemathesis over
# /openapi.json, and Chromium on the pages, whose pictures stay in target/clients. Installs what is missing, Debian's packages
# only as root. It tests target/release/pyrex, as `make test` builds it, unless PYREX_BIN is another.
set -euo pipefail
cd "$(dirname "$0")/.."
here=tests/clients
out=target/clients
mkdir -p "$out"

missing=()
command -v curl > /dev/null || missing+=(curl)
command -v node > /dev/null || missing+=(nodejs)
command -v npm > /dev/null || missing+=(npm)
python3 -m venv --help > /dev/null 2>&1 || missing+=(python3-venv)
CHROMIUM=$(command -v chromium-headless-shell || command -v chromium || command -v chromium-browser || command -v google-chrome || true)
[ -n "$CHROMIUM" ] || missing+=(chromium fonts-dejavu-core)
if [ "${#missing[@]}" != 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        echo "missing: ${missing[*]} (Debian: apt-get install ${missing[*]})" >&2
        exit 1
    fi
    apt-get update
    apt-get install --yes --no-install-recommends "${missing[@]}"
    CHROMIUM=$(command -v chromium-headless-shell || command -v chromium)
fi
export CHROMIUM

PYREX_BIN=${PYREX_BIN:-target/release/pyrex}
PYREX_BIN=$(realpath "$PYREX_BIN")
export PYREX_BIN
[ -x "$PYREX_BIN" ] || cargo build --release

# Both are kept while what they are to hold stays the same.
if ! cmp --silent "$here/requirements.txt" "$out/venv/requirements.txt"; then
    rm -rf "$out/venv"
    python3 -m venv "$out/venv"
    "$out/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$out/venv/"
fi &
python=$!
if ! cmp --silent "$here/package.json" "$here/node_modules/package.json"; then
    (cd "$here" && npm install --no-package-lock --no-audit --no-fund --silent)
    cp "$here/package.json" "$here/node_modules/"
fi
wait "$python"

# A model that has the words for tools and thinking: the bundled weights under a template that shows both.
rm -rf "$out/tools"
cp -r models/shapes "$out/tools"
cp "$here/tools.jinja" "$out/tools/chat_template.jinja"
printf 'alice:alice-0123456789abcdef\nguest:guest-0123456789abcdef\n' > "$out/keys"
chmod 600 "$out/keys"
cat > "$out/keyed.toml" << END
[auth]
keys = "$PWD/$out/keys"

[tenants.alice]
keys = ["alice"]

[tenants.guest]
keys = ["guest"]
requests_per_minute = 2
END

exec node "$here/run.mjs" "$@"
