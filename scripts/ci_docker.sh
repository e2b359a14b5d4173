#!/bin/sh
# A Docker daemon and the images that the tests marked `docker` use, made from what Debian and PyPI give: no image
# registry is asked for anything.
#
#   scripts/ci_docker.sh up DIR     start a daemon of its own in DIR and build the images; needs root
#   scripts/ci_docker.sh env DIR    print the environment that points at it, for `eval`
#   scripts/ci_docker.sh down DIR   end that daemon and remove DIR
#   scripts/ci_docker.sh images     only build the images, on the daemon of DOCKER_HOST, with BASE (an image) as base
#
# The daemon has its socket, data and pid in DIR, so it neither needs nor disturbs one that runs already. On its PATH
# is a stub of NVIDIA's runtime hook: with it a daemon on a host without a GPU accepts device requests, which is how
# pinning is tested.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
action=${1:-}
folder=${2:-}

say() { echo "ci_docker: $*" >&2; }

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

start_daemon() {
    for program in dockerd debootstrap; do
        command -v $program >/dev/null 2>&1 || {
            say "there is no $program (Debian: apt-get install docker.io debootstrap)"
            exit 1
        }
    done
    mkdir -p "$folder/bin"
    cat >"$folder/bin/nvidia-container-runtime-hook" <<'HOOK'
#!/bin/sh
cat >/dev/null
HOOK
    chmod +x "$folder/bin/nvidia-container-runtime-hook"
    PATH="$folder/bin:$PATH" setsid dockerd --data-root "$folder/data" --exec-root "$folder/exec" \
        --pidfile "$folder/docker.pid" --host "unix://$folder/docker.sock" \
        >"$folder/dockerd.log" 2>&1 </dev/null &
    tries=0
    until docker version >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -gt 150 ]; then
            say "dockerd does not answer; the end of its log:"
            tail -n 15 "$folder/dockerd.log" >&2
            exit 1
        fi
        sleep 0.2
    done
}

# What debian:bookworm-slim is in a registry: Debian 12 without what a container has no use for.
import_base() {
    debootstrap --variant=minbase bookworm "$folder/base" >"$folder/debootstrap.log" 2>&1 || {
        tail -n 15 "$folder/debootstrap.log" >&2
        exit 1
    }
    tar -C "$folder/base" -c --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' \
        --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' . |
        docker import --change 'CMD ["/bin/sh"]' - tritonfleet-base >/dev/null
    rm -rf "$folder/base"
}

# Wheels are fetched on this host, so that the builds need no Python package index. Debian 12 has Python 3.11.
build_images() {
    base=${BASE:-debian:bookworm-slim}
    wheels=$(mktemp -d)
    mkdir "$wheels/triton" "$wheels/fleet"
    fetch="$python -m pip --quiet --disable-pip-version-check"
    $fetch download --no-deps --only-binary=:all: --dest "$wheels/triton" -c "$root/constraints.txt" nvidia-pytriton
    $fetch wheel --no-deps --wheel-dir "$wheels/fleet" "$root"
    $fetch download --dest "$wheels/fleet" -c "$root/constraints.txt" --only-binary=:all: --python-version 3.11 \
        --implementation cp --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_34_x86_64 "$wheels"/fleet/tritonfleet-*.whl
    docker build --quiet --build-arg "BASE=$base" -f "$root/compose/Dockerfile.triton-cpu" \
        -t tritonfleet-triton-cpu "$wheels/triton" >/dev/null
    docker build --quiet --build-arg "BASE=$base" -f "$root/compose/Dockerfile" \
        -t tritonfleet "$wheels/fleet" >/dev/null
    rm -rf "$wheels"
    docker images --format '{{.Repository}} {{.Size}}' | grep '^tritonfleet' >&2
}

case $action in
up)
    [ -n "$folder" ] || usage
    mkdir -p "$folder"
    folder=$(cd "$folder" && pwd)
    export DOCKER_HOST="unix://$folder/docker.sock"
    began=$(date +%s)
    start_daemon
    import_base
    BASE=tritonfleet-base build_images
    say "daemon and images are there after $(($(date +%s) - began)) s"
    ;;
env)
    [ -n "$folder" ] || usage
    echo "export DOCKER_HOST=unix://$(cd "$folder" && pwd)/docker.sock TRITONFLEET_REQUIRE_DOCKER=1 TRITONFLEET_GPU_STUB=1"
    ;;
down)
    [ -n "$folder" ] || usage
    if [ -f "$folder/docker.pid" ]; then
        pid=$(cat "$folder/docker.pid")
        kill "$pid" 2>/dev/null || true
        while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
    fi
    folder=$(cd "$folder" 2>/dev/null && pwd) || exit 0
    awk -v under="$folder/" 'index($2, under) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount -l
    rm -rf "$folder"
    ;;
images)
    build_images
    ;;
*)
    usage
    ;;
esac
