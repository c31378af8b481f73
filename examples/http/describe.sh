#!/bin/sh
# Asks a running `pyrex serve` what a picture shows: examples/http/describe.sh [URL [PNG]]
set -eu
url=${1:-http://localhost:8080}
image=${2:-models/shapes/examples/red_circle.png}

curl --silent --show-error "$url/v1/chat/completions" --header "content-type: application/json" --data @- <<END
{"messages": [{"role": "user", "content": [
  {"type": "image_url", "image_url": {"url": "data:image/png;base64,$(base64 < "$image" | tr -d '\n')"}},
  {"type": "text", "text": "Describe this image."}]}]}
END
