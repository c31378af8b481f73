#!/usr/bin/env bash
# What curl gets from a running server, byte for byte where it matters.
set -euo pipefail
url=${PYREX_URL:?the server}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
num_passed=0

# Says what was expected and ends, unless $1 is $2.
same() {
    if [ "$1" != "$2" ]; then
        printf 'curl: %s: expected %s, found %s\n' "$3" "$2" "$1" >&2
        exit 1
    fi
    num_passed=$((num_passed + 1))
}
# The status of a request; its body is in $out/body, its headers are in $out/head.
ask() {
    curl --silent --show-error --max-time 60 --output "$out/body" --dump-header "$out/head" --write-out '%{http_code}' "$@"
}
post() {
    local path=$1
    shift
    ask --header 'Content-Type: application/json' "$@" "$url$path"
}
header() {
    tr -d '\r' < "$out/head" | sed -n "s/^$1: //Ip"
}

who='{"model": "shapes", "messages": [{"role": "user", "content": "Who are you?"}], "temperature": 0'
same "$(post /v1/chat/completions --data "$who}")" 200 'a chat'
same "$(header content-type)" application/json 'the type of a chat'
whole=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["message"]["content"])' < "$out/body")

same "$(post /v1/chat/completions --no-buffer --data "$who, \"stream\": true}")" 200 'a stream'
same "$(header content-type | cut -d';' -f1)" text/event-stream 'the type of a stream'
same "$(tail -c 14 "$out/body")" 'data: [DONE]' 'the end of a stream'
same "$(python3 -c '
import json, sys
events = sys.stdin.read().split("\n\n")
assert events.pop() == "" and events.pop() == "data: [DONE]"
chunks = [json.loads(event.removeprefix("data: ")) for event in events]
print("".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks))
' < "$out/body")" "$whole" 'the words of a stream'

same "$(post /v1/chat/completions --data '{')" 400 'no JSON'
same "$(post /v1/chat/completions --data "$who, \"model\": \"shapes\"}")" 400 'a field that is there twice'
same "$(ask "$url/v1/chat/completions")" 405 'a GET where a POST belongs'
same "$(ask "$url/v1/nothing")" 404 'a path that is not there'
same "$(ask --data x "$url/v1/chat/completions")" 415 'a form'
head -c 40000000 /dev/zero > "$out/large"
same "$(post /v1/chat/completions --data-binary "@$out/large" --header 'Expect:')" 413 'a body that is too large'
same "$(ask "$url/health/live")" 200 'alive'
same "$(ask "$url/health/ready")" 200 'ready'
same "$(ask "$url/openapi.json")" 200 'the API as a document'
same "$(ask "$url/")" 200 'the page'
header content-security-policy | grep -q "default-src 'none'" || same none "default-src 'none'" 'the policy of the page'
same "$(ask --head "$url/v1/models")" 200 'a HEAD'
same "$(ask --http1.0 "$url/v1/models")" 200 'HTTP/1.0'

printf 'curl: %s passed, 0 failed\n' "$num_passed"
