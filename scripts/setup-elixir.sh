#!/bin/sh
# Installs Elixir with apt-get if there is none and it may.
set -eu
if command -v mix > /dev/null; then
    exit
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "no Elixir: install 1.14 or later (Debian: apt-get install elixir)" >&2
    exit 1
fi
apt-get update
apt-get install --yes --no-install-recommends elixir
