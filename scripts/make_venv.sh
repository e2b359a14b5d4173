#!/bin/sh
# Make the virtual environment at $1 with the first suitable Python; say what to install when there is none.
# PYTHON=/path/to/python3.12 chooses one.
#
# Suitable is 3.11 or 3.12: the Python backend of the packaged Triton needs numpy 1, which ends there. It also
# needs libpython, which Debian packages apart from python3.
set -eu
venv=$1
candidates=${PYTHON:-python3 python3.12 python3.11}

suitable() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

# Exit status 0 if the interpreter's own library is in its folder or where the loader looks.
has_libpython() {
    "$1" -c 'import ctypes.util, os, sys, sysconfig
name = "python%d.%d" % sys.version_info[:2]
own = os.path.join(sysconfig.get_config_var("LIBDIR") or "", "lib%s.so.1.0" % name)
sys.exit(not (os.path.isfile(own) or ctypes.util.find_library(name)))' 2>/dev/null
}

if suitable "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi

found=
python=
missing=
for candidate in $candidates; do
    suitable "$candidate" || continue
    found=$candidate
    missing=
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "$candidate" -c 'import ensurepip, venv' 2>/dev/null || missing="python$version-venv"
    has_libpython "$candidate" || missing="${missing:+$missing }libpython$version"
    if [ -z "$missing" ]; then
        python=$candidate
        break
    fi
done
if [ -z "$found" ]; then
    echo "No Python 3.11 or 3.12 found (looked for: $candidates)." >&2
    echo "Install one (Debian, Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12 up" >&2
    exit 1
fi
if [ -z "$python" ]; then
    echo "$found is Python $version, but a part of it is missing. Install it and run make again:" >&2
    echo "  apt-get install $missing      (Debian, Ubuntu)" >&2
    exit 1
fi
rm -rf "$venv"
"$python" -m venv "$venv"
echo "made $venv with $python ($version)"
