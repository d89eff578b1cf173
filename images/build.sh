#!/bin/sh
# Build the images with docker, podman or buildah, whichever is there: images/build.sh [pipeline|predictor|gateway]...
# By environment: BASE (best with @sha256:...), TORCH and TORCH_INDEX (a CUDA build), TAG, REGISTRY, BUILD_FLAGS (passed on).
set -eu
cd "$(dirname "$0")/.."
TAG="${TAG:-0.1.0}"
REGISTRY="${REGISTRY:-ghcr.io/slicewise}"
REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)"

# A docker client without its daemon is no docker.
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
  TOOL="docker build"
elif command -v podman >/dev/null; then
  TOOL="podman build --format docker"
elif command -v buildah >/dev/null; then
  TOOL="buildah bud --format docker"
else
  echo "build.sh: none of docker (with its daemon), podman and buildah is there" >&2
  exit 3
fi

[ "$#" -gt 0 ] || set -- pipeline predictor gateway
for name in "$@"; do
  case "$name" in
    # kfp's local runner takes no image without "python" in its name.
    pipeline) image=pipeline-python ;;
    predictor | gateway) image="$name" ;;
    *) echo "build.sh: no image $name; there are pipeline, predictor and gateway" >&2; exit 2 ;;
  esac
  # shellcheck disable=SC2086  # flags and tool are lists of words
  $TOOL ${BUILD_FLAGS:-} -f "images/$name/Dockerfile" --build-arg REVISION="$REVISION" --build-arg VERSION="$TAG" \
    ${BASE:+--build-arg BASE="$BASE"} ${TORCH:+--build-arg TORCH="$TORCH"} \
    ${TORCH_INDEX:+--build-arg TORCH_INDEX="$TORCH_INDEX"} -t "$REGISTRY/$image:$TAG" .
done
