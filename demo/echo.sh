#!/bin/sh
# The demo without Python: the gateway with its built-in echo provider. Needs Rust, and curl to show an answer.
# `--check` exits after one answer; without --allow-echo it fails, because no model answered.
set -eu
cd "$(dirname "$0")/.."

check='' allow=''
for argument; do
    case $argument in
        --check) check=1 ;;
        --allow-echo) allow=1 ;;
        *) echo "usage: demo/echo.sh [--check [--allow-echo]]" >&2; exit 2 ;;
    esac
done

if [ -z "${GATEWAY_BIN:-}" ]; then
    command -v cargo >/dev/null 2>&1 || { echo "demo: Rust is missing: install it from https://rustup.rs and run this again"; exit 1; }
    echo "[1/2] Building the gateway (the first time takes some minutes)"
    cargo build --release -p aisix || { echo "demo: the build failed: cargo's message is above"; exit 1; }
    GATEWAY_BIN=${CARGO_TARGET_DIR:-target}/release/aisix
fi
case $GATEWAY_BIN in /*) ;; *) GATEWAY_BIN=$PWD/$GATEWAY_BIN ;; esac
# Settings in the environment would override the configuration written below.
for name in $(env | sed -n 's/^\(AISIX_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$name"; done

folder=$(mktemp -d)
pid=''
clean() {
    trap '' INT TERM HUP
    [ -z "$pid" ] || { kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; }
    rm -rf "$folder"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The ports of callers, admin and metrics; a listener that cannot be opened ends the gateway with a line that says so.
read -r port admin metrics <<EOF
${DEMO_PORTS:-3000 3001 9090}
EOF
url=http://127.0.0.1:$port
DEMO_CALLER_KEY=sk-demo-$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
export DEMO_CALLER_KEY

cat >"$folder/config.yaml" <<EOF
resources_file: $folder/resources.yaml
proxy:
  addr: 127.0.0.1:$port
admin:
  addr: 127.0.0.1:$admin
  admin_keys: ["admin-$DEMO_CALLER_KEY"]
observability:
  metrics:
    prometheus:
      addr: 127.0.0.1:$metrics
shutdown:
  min_drain_secs: 0
EOF
cat >"$folder/resources.yaml" <<EOF
_format_version: "1"
provider_keys:
  - display_name: local
    provider: echo
    api_key: not-needed
models:
  - display_name: echo
    provider: echo
    model_name: echo
    provider_key: local
api_keys:
  - display_name: demo
    key_env: DEMO_CALLER_KEY
    allowed_models: ["*"]
EOF

echo "[2/2] Python 3.9 or newer is missing, so there is no language model: the built-in echo provider answers instead"
"$GATEWAY_BIN" --config "$folder/config.yaml" >"$folder/gateway.log" 2>&1 &
pid=$!

body='{"model":"echo","messages":[{"role":"user","content":"Hello, gateway!"}]}'
chat() {
    curl -fsS "$url/v1/chat/completions" -H "Authorization: Bearer $DEMO_CALLER_KEY" \
        -H "Content-Type: application/json" -d "$body"
}
if command -v curl >/dev/null 2>&1; then
    tries=0
    until curl -fsS "$url/livez" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -gt 100 ] || ! kill -0 "$pid" 2>/dev/null; then
            echo "demo: the gateway did not start:"
            tail -n 5 "$folder/gateway.log"
            exit 1
        fi
        sleep 0.1
    done
    echo
    echo "  You:   Hello, gateway!"
    reply=$(chat) || { echo "demo: the gateway gave no answer"; exit 1; }
    echo "  echo:  $reply"
else
    sleep 1
    kill -0 "$pid" 2>/dev/null || { echo "demo: the gateway did not start:"; tail -n 5 "$folder/gateway.log"; exit 1; }
fi

if [ -n "$check" ]; then
    [ -n "${reply:-}" ] || { echo "demo-check: failed: curl is missing, so nothing was asked"; exit 1; }
    [ -n "$allow" ] || { echo "demo-check: failed: the answer came from the built-in echo provider, not from a model: Python 3.9 or newer is missing"; exit 1; }
    echo "demo-check: passed"
    exit 0
fi

cat <<EOF

  curl $url/v1/chat/completions \\
    -H "Authorization: Bearer $DEMO_CALLER_KEY" -H "Content-Type: application/json" \\
    -d '$body'

  OpenAI SDK: base_url="$url/v1", api_key="$DEMO_CALLER_KEY", model="echo"

Running. Ctrl-C stops everything and removes the files.
EOF
wait "$pid" || { echo "demo: the gateway ended:"; tail -n 5 "$folder/gateway.log"; exit 1; }
