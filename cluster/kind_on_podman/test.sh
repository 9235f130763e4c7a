#!/usr/bin/env bash
# The ways to a kind cluster, each as a person types it: README's "With Helm, kind", `skaffold run`, then `make up`, a
# conversation, a load test and `make down`. Run by `make kind-test`, where there is an engine.
set -euo pipefail

# Prints how long the step took, and what it said if it failed.
log=$TMPDIR/step.log
step() {
  local name=$1 began=$SECONDS
  shift
  if ! "$@" >"$log" 2>&1; then
    cat "$log"
    echo "failed after $((SECONDS - began)) s: $name"
    exit 1
  fi
  printf '%4d s  %s\n' $((SECONDS - began)) "$name"
}

# With podman-docker's `docker`.
as_in_readme() {
  awk '/^### / { kind = $2 == "kind" } kind && /^`/ { code = !code; next } kind && code' README.md >"$TMPDIR/readme.sh"
  grep -q 'kind create cluster' "$TMPDIR/readme.sh"
  PATH=$DACA_KIND_RUN/docker:$PATH bash -euxo pipefail "$TMPDIR/readme.sh"
}

skaffold_run() {
  podman system service --time=0 "unix://$TMPDIR/podman.sock" &
  local service=$!
  # Skaffold works with Helm 3 only.
  PATH=$DACA_KIND_RUN/helm3:$DACA_KIND_RUN/docker:$PATH DOCKER_HOST=unix://$TMPDIR/podman.sock DOCKER_BUILDKIT=0 \
    SKAFFOLD_UPDATE_CHECK=false skaffold run --interactive=false || { kill "$service"; return 1; }
  kill "$service"
  wait "$service" || true
}

turn() {
  curl -sS --fail-with-body -m 30 -X POST http://localhost:30010/chat/ -H 'Content-Type: application/json' -d "$1"
}

conversation() {
  turn '{"user_id": "junaid", "text": "Hi there"}'
  turn '{"user_id": "junaid", "text": "What did I say before?"}' | tee "$TMPDIR/answer"
  grep -q 'Hi there' "$TMPDIR/answer"
}

nothing_left() {
  test -z "$(kind get clusters 2>/dev/null)"
  test -z "$(podman ps --all --quiet)"
}

# What a run that was cut off has left in the engine's storage.
step "the engine answers" podman info
podman rm --all --force --volumes >/dev/null
podman volume prune --force >/dev/null
step "README: With Helm, kind" as_in_readme
step "skaffold run" skaffold_run
step "kind delete cluster" kind delete cluster --name daca
step "make up CLUSTER=kind" make up CLUSTER=kind
step "helm test" helm test daca -n daca --logs
step "a conversation" conversation
step "make load" make load SCENARIO=none USERS=4 RUN_TIME=30
step "make down" make down
step "nothing is left" nothing_left
podman image prune --force >/dev/null
echo "all of it in $SECONDS s"
