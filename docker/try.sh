#!/usr/bin/env bash
# Builds the images and runs a federated round over compose, for real, as root on a Debian host
# without a Docker engine or registry: the base image comes from debootstrap, wheels from pip.
#
#   docker/try.sh [FOLDER]     the engine's data and logs go to FOLDER (a new one in /tmp)
#
# Where an engine runs already (docker info), that one is used, with the base image of $BASE if set.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
work=${1:-$(mktemp -d)}
python=${PYTHON:-python3}

say() { printf '\n== %s\n' "$*"; }
compose() { docker-compose -p wattfed-try -f "$top/docker/compose.yaml" "$@"; }

if ! command -v docker-compose > /dev/null || ! command -v dockerd > /dev/null; then
    say "installing Debian's docker.io, docker-compose and debootstrap"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends docker.io docker-compose debootstrap iptables > "$work/apt.log"
fi

export DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0 # Debian's packages have no BuildKit client
engine=
if ! docker info > /dev/null 2>&1; then
    say "starting an engine in $work"
    export DOCKER_HOST=unix://$work/docker.sock
    dockerd --data-root "$work/data" --exec-root "$work/exec" -p "$work/pid" -H "$DOCKER_HOST" \
        > "$work/dockerd.log" 2>&1 &
    engine=$!
    for _ in $(seq 60); do docker info > /dev/null 2>&1 && break || sleep 1; done
    docker info > /dev/null || { tail -5 "$work/dockerd.log"; exit 1; }
fi
finish() {
    status=$?
    [ $status = 0 ] || compose logs --tail 30 2>&1 | tail -150
    compose down -v --remove-orphans > "$work/down.log" 2>&1 || true
    [ -z "$engine" ] || { kill $engine; wait $engine || true; }
    exit $status
}
trap finish EXIT

if [ -z "${BASE:-}" ]; then
    export BASE=wattfed-base:bookworm PIP_OPTIONS=--no-index
    if ! docker image inspect $BASE > /dev/null 2>&1; then
        say "making $BASE with debootstrap"
        debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv \
            bookworm "$work/base" > "$work/debootstrap.log"
        tar -C "$work/base" -c . | docker import - $BASE
        rm -rf "$work/base"
    fi
    say "collecting wheels"
    "$python" -m pip wheel --quiet --wheel-dir "$top/docker/wheels" -c "$top/constraints.txt" \
        hatchling "$top/release/powerctl" "$top[vision]" > "$work/wheels.log" 2>&1 \
        || { tail -30 "$work/wheels.log"; exit 1; }
    rm "$top"/docker/wheels/{wattfed,powerctl}-*.whl # the images build them themselves
fi

say "building the images"
compose build > "$work/build.log" 2>&1 || { tail -30 "$work/build.log"; exit 1; }
docker images --format '{{.Repository}} {{.Size}}' | grep '^wattfed-[sc]'
say "starting the federation"
compose up -d > "$work/up.log" 2>&1 || { tail -30 "$work/up.log"; exit 1; }
say "three rounds, while the first agent serves"
compose run --rm run
say "who runs as root (none should)"
compose ps -q | xargs docker inspect --format '{{.Name}} {{.Config.User}} {{if .State.Health}}{{.State.Health.Status}}{{end}}'
say "latencies of the first agent's requests"
compose logs --tail 4 load
