#!/bin/sh
# Run the built images as a restricted pod runs them: images/try.sh WORK [pipeline] [serve]
# "pipeline" runs every stage to a packaged model in the pipeline image, into WORK/run; "serve" lets the predictor image
# answer through the gateway image. All with a read-only root, no capabilities, no network but loopback, user 1000.
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
TAG="${TAG:-0.1.0}"
REGISTRY="${REGISTRY:-ghcr.io/slicewise}"
# A docker client without its daemon is no docker.
if [ -z "${TOOL:-}" ]; then
  if docker info >/dev/null 2>&1; then TOOL=docker; else TOOL=podman; fi
fi
USER_ID="${USER_ID:-1000}"
# As overlay "gateway" has it: BACKEND=torchserve-grpc. ENGINE=auto lets the predictor measure what is fastest.
settings="-e SLICEWISE_BACKEND=${BACKEND:-torchserve-http} -e SLICEWISE_TORCHSERVE_GRPC_PORT=7070"
predictor_settings="-e SLICEWISE_TORCHSERVE_METRICS_PORT=8082 ${ENGINE:+-e SLICEWISE_ENGINE=$ENGINE}"
work="$1"; shift
[ "$#" -gt 0 ] || set -- pipeline serve
mkdir -p "$work/run" && chown "$USER_ID" "$work/run" && work="$(cd "$work" && pwd)"
restricted="--read-only --cap-drop all --security-opt no-new-privileges --user $USER_ID --tmpfs /tmp:rw,exec,size=4g,mode=1777"
started=""
# One after the other: the gateway lives in the predictor's network.
trap 'for id in $started; do "$TOOL" rm -f "$id" >/dev/null; done' EXIT

inside() { "$TOOL" exec gateway-trial python -c "$1"; }

run_pipeline() {
  # shellcheck disable=SC2086
  "$TOOL" run --rm $restricted --network none -v "$work/run:/run-folder:rw" -v "$here/trial.yaml:/trial.yaml:ro" \
    "$REGISTRY/pipeline-python:$TAG" run --config /trial.yaml --out /run-folder/trial --json
}

start_serving() {
  store="$work/model-store"
  mkdir -p "$store" && find "$work/run" -name slicewise.mar -exec cp {} "$store/" \;
  # shellcheck disable=SC2086
  started="$("$TOOL" run -d --name predictor-trial $restricted --network none --shm-size 512m -v "$store:/mnt/models:ro" \
    $settings $predictor_settings \
    "$REGISTRY/predictor:$TAG" /mnt/models --port=8085 --model_name=slicewise)"
  # What KServe adds to a transformer's arguments, some of it twice.
  # shellcheck disable=SC2086
  started="$("$TOOL" run -d --name gateway-trial $restricted --network container:predictor-trial $settings -e SLICEWISE_UI=true \
    "$REGISTRY/gateway:$TAG" --model_name slicewise --predictor_host 127.0.0.1:8085 --http_port 8080 \
    --predictor_protocol v2 --enable_latency_logging=false --model_name slicewise) $started"
}

wait_ready() {
  for _ in $(seq 200); do
    if inside "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz', timeout=20)" 2>/dev/null; then return; fi
    for name in predictor-trial gateway-trial; do
      [ "$("$TOOL" inspect -f '{{.State.Running}}' "$name")" = true ] || { "$TOOL" logs --tail 30 "$name" >&2; exit 1; }
    done
    sleep 2
  done
  "$TOOL" logs --tail 30 predictor-trial >&2
  exit 1
}

ask() {
  inside '
import json, urllib.request as u
body = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 48, 48], "data": [float(n % 97) for n in range(2304)]}],
        "parameters": {"modalities": "flair", "tasks": "classify,segment"}}
request = u.Request("http://127.0.0.1:8080/v2/models/slicewise/infer", json.dumps(body).encode(), {"content-type": "application/json"})
outputs = json.load(u.urlopen(request, timeout=60))["outputs"]
print({item["name"]: item["shape"] for item in outputs})
'
  inside 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:8080/ui/").status, "for the page")'
  inside 'import urllib.request as u; print([line for line in u.urlopen("http://127.0.0.1:8082/metrics").read().decode().splitlines() if line.startswith("slicewise_slices_total")])'
  for name in predictor-trial gateway-trial; do
    "$TOOL" exec "$name" sh -c 'echo "user $(id -u), capabilities $(grep CapEff /proc/1/status | cut -f2)"; ! touch /opt/venv/x'
  done
}

for part in "$@"; do
  case "$part" in
    pipeline) run_pipeline ;;
    serve) start_serving; wait_ready; ask ;;
    *) echo "try.sh: no part $part; there are pipeline and serve" >&2; exit 2 ;;
  esac
done
echo "tried: $*"
