# Sourced by the other scripts: makes, or reuses, the checkout's own virtual environment.
# Sets $python to its interpreter. $PYTHON chooses the interpreter it is made from.
# Usage: . scripts/environment.sh; environment [EXTRA[,EXTRA...]]

environment() {
    top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    base=${PYTHON:-python3}
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "Python 3.11 or newer is needed; $base is $("$base" -V 2>&1). Set PYTHON=/path/to/python3." >&2
        exit 1
    }
    # One environment an interpreter version and set of extras, remade when pyproject.toml changes.
    local venv stamp
    venv="$top/.venv-$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')${1:+-${1//,/-}}"
    stamp="$venv/.installed-from"
    python="$venv/bin/python"
    if ! cmp -s "$top/pyproject.toml" "$stamp" || ! "$python" -c '' 2>/dev/null; then
        echo "preparing $(basename "$venv") (once) ..." >&2
        local pip=("$python" -m pip)
        if ! "$base" -m venv --clear "$venv" >/dev/null 2>&1; then
            # Some systems' Python comes without the bundled pip: then the system's pip is used.
            "$base" -m venv --clear --without-pip "$venv"
            pip=("$base" -m pip --python "$python")
        fi
        "${pip[@]}" install --quiet --disable-pip-version-check -e "$top${1:+[$1]}"
        cp "$top/pyproject.toml" "$stamp"
    fi
}
