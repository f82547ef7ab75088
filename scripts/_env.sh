# Sourced by the other scripts: leaves the shell in the project's root with $python set to the interpreter of .venv,
# which it makes, or makes anew when pyproject.toml has changed. Plain enough for bash 3.2.

set -eu
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '%s\n' "$*" >&2; }

# The newest interpreter that really starts: a name on PATH may be a shim for a version that is not there.
find_python() {
    local name
    for name in ${PYTHON:-} python3.14 python3.13 python3.12 python3.11 python3 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
}

# Prints the line that installs packages on this machine; the words are Debian's names.
install_line() {
    local sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo "
    if command -v apt-get >/dev/null 2>&1; then
        say "    ${sudo}apt-get install -y $*"
    elif command -v brew >/dev/null 2>&1; then
        say "    brew install python@3.13"
    else
        say "    (with your package manager, here by Debian's names) $*"
    fi
}

# Says what the machine lacks, all of it at once, and leaves the list in $missing.
check_machine() {
    local version
    missing=""
    base_python=$(find_python)
    if [ -z "$base_python" ]; then
        say "error: no Python 3.11 or later on PATH"
        missing="python3 python3-venv"
        base_python=python3
    elif ! "$base_python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        version=$("$base_python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        say "error: $base_python cannot make virtual environments: its venv or ensurepip module is missing"
        missing="python$version-venv"
    fi
    # The wheel of the renderer (mitsuba, drjit) links to it, and slim images do not ship it.
    if [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] && ! has_libatomic; then
        say "error: libatomic.so.1 is missing, which the renderer (mitsuba) needs"
        missing="$missing libatomic1"
    fi
}

has_libatomic() {
    if command -v "$base_python" >/dev/null 2>&1; then
        "$base_python" -c 'import ctypes; ctypes.CDLL("libatomic.so.1")' >/dev/null 2>&1
    else
        ls /lib/x86_64-linux-gnu/libatomic.so.1 /usr/lib/x86_64-linux-gnu/libatomic.so.1 /usr/lib64/libatomic.so.1 \
            >/dev/null 2>&1
    fi
}

# The environment answers to pyproject.toml, to the interpreter and to the place of the tree, and to nothing else.
stamp_of_env() {
    "$base_python" -c '
import hashlib, pathlib, sys
print(hashlib.sha256(pathlib.Path("pyproject.toml").read_bytes()).hexdigest(), sys.version.split()[0], pathlib.Path.cwd())'
}

make_env() {
    local stamp
    check_machine
    if [ -n "$missing" ]; then
        say "try:"
        # shellcheck disable=SC2086
        install_line $missing
        exit 1
    fi
    python="$root/.venv/bin/python"
    stamp=$(stamp_of_env)
    if [ -x "$python" ] && [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]; then
        return
    fi
    say "making .venv with $("$base_python" --version) ..."
    rm -rf .venv
    "$base_python" -m venv .venv
    "$python" -m pip install -qq --disable-pip-version-check --editable '.[dev]'
    printf '%s\n' "$stamp" > .venv/stamp
}

make_env
