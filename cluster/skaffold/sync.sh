#!/usr/bin/env bash
# Brings the sources in the pods of `skaffold dev` up to date after a deployment. Skaffold syncs a change once, so a pod
# that is replaced because the chart changed would go on with the sources of its image, and nothing would say so
# (https://github.com/GoogleContainerTools/skaffold/issues/6924).
set -euo pipefail
cd "$(dirname "$0")/../../images"
kubectl=(kubectl --context "$SKAFFOLD_KUBE_CONTEXT" --namespace "${SKAFFOLD_NAMESPACE:-daca}")

# Only what differs is written: a service starts anew for every file that is.
write='
import pathlib, sys, tarfile
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    for member in filter(tarfile.TarInfo.isfile, archive):
        path, content = pathlib.Path("/app", member.name), archive.extractfile(member).read()
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            print("synced", path)
'
running='{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}'
for service in chat-service agent-memory-service offline-model; do
  for pod in $("${kubectl[@]}" get pods -l "app.kubernetes.io/name=$service" --field-selector status.phase=Running \
    -o "go-template=$running"); do
    tar -cf - --exclude __pycache__ -C common/src . -C "../../$service/src" . |
      "${kubectl[@]}" exec -i "$pod" -c "$service" -- python3 -c "$write"
  done
done
