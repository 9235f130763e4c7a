#!/usr/bin/env bash
# Brings Dapr up where the cluster has none, and waits until it gives pods their sidecars. Skaffold calls it before it
# deploys the bundle, with SKAFFOLD_KUBE_CONTEXT.
set -euo pipefail
cd "$(dirname "$0")"
context=$SKAFFOLD_KUBE_CONTEXT
# Settings of the Skaffold that calls (its namespace, its profiles, its ports) are not those of this module.
unset "${!SKAFFOLD_@}"

image=$(kubectl --context "$context" get deployment -A -l app=dapr-sidecar-injector \
  -o 'jsonpath={.items[*].spec.template.spec.containers[0].image}')
if [ -n "$image" ]; then
  echo "Dapr ${image##*:} is there and stays as it is"
  exit
fi
echo "the cluster has no Dapr: charts/dapr brings it up, and it stays when the bundle goes"
SKAFFOLD_UPDATE_CHECK=false skaffold run --kube-context "$context" --interactive=false

# A pod that is admitted while the injector does not answer stays without a sidecar for ever. So one is asked for, on
# trial, until it has one; as a controller, because those are whom the injector trusts.
probe() {
  kubectl --context "$context" create --dry-run=server -o 'jsonpath={..name}' \
    --as system:serviceaccount:kube-system:replicaset-controller -f - <<'POD'
apiVersion: v1
kind: Pod
metadata:
  generateName: injector-probe-
  namespace: default
  annotations: {dapr.io/enabled: "true", dapr.io/app-id: injector-probe}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: app
      image: none
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
POD
}
for _ in {1..120}; do
  answer=$(probe 2>&1) || true
  case " $answer " in *" daprd "*) exit ;; esac
  sleep 1
done
echo "Dapr's injector adds no sidecar to pods, after 120 s: $answer" >&2
exit 1
