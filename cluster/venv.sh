#!/usr/bin/env bash
# venv.sh PYTHON VENV UV_VERSION: the project's Python environment, from requirements.txt with its hashes.
set -euo pipefail
python=$1 venv=$2 uv_version=$3

if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
  echo "make: $python is $("$python" --version 2>&1); this project runs on Python 3.11 to 3.13. Name one: make PYTHON=python3.12" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing python3-venv (Debian's $python comes without it)"
    apt-get install -y -q python3-venv >/dev/null
  else
    echo "make: $python has no ensurepip. Install it (Debian, Ubuntu: python3-venv), or name another: make PYTHON=..." >&2
    exit 1
  fi
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore "uv==$uv_version"
export UV_SYSTEM_CERTS=true # as pip does: a proxy's certificate is known to the system, not to uv
"$venv/bin/uv" pip sync --quiet --python "$venv/bin/python" --require-hashes requirements.txt
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps \
  --editable images/common --editable images/chat-service --editable images/agent-memory-service --editable images/offline-model \
  --editable images/placement-relay
touch "$venv/.ready"
