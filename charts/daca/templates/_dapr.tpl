{{/*
Annotations by which Dapr puts its sidecar into a pod. Takes (dict "root" $ "name" NAME "part" PART "port" PORT); the name
is the app id.
*/}}
{{- define "daca.sidecarAnnotations" -}}
{{- $v := .root.Values -}}
{{- $sidecar := .part.sidecar -}}
dapr.io/enabled: "true"
dapr.io/app-id: {{ .name }}
dapr.io/app-port: {{ include "daca.pod.text" .port }}
dapr.io/config: daca
dapr.io/log-as-json: "true"
dapr.io/log-level: {{ $v.dapr.logLevel }}
dapr.io/max-body-size: {{ toJson $v.dapr.maxBodySize }}
dapr.io/enable-app-health-check: "true"
dapr.io/app-health-check-path: /healthz/app
dapr.io/app-health-probe-interval: {{ include "daca.pod.text" $v.dapr.appHealth.intervalSeconds }}
dapr.io/app-health-probe-timeout: {{ include "daca.pod.text" $v.dapr.appHealth.timeoutMs }}
dapr.io/app-health-threshold: {{ include "daca.pod.text" $v.dapr.appHealth.threshold }}
dapr.io/block-shutdown-duration: {{ printf "%ds" (int $v.shutdown.sidecarBlockSeconds) }}
dapr.io/graceful-shutdown-seconds: {{ include "daca.pod.text" $v.shutdown.sidecarGraceSeconds }}
dapr.io/app-token-secret: {{ include "daca.appTokenSecret" .root }}
# The component `secretstore` is the only way to a secret, and it is held to one name.
dapr.io/disable-builtin-k8s-secret-store: "true"
dapr.io/volume-mounts: kube-api-access:/var/run/secrets/kubernetes.io/serviceaccount
dapr.io/sidecar-seccomp-profile-type: RuntimeDefault
{{- if $v.placementRelay.enabled }}
dapr.io/placement-host-address: {{ include "daca.placementRelayAddress" .root }}
{{- end }}
{{- with $v.dapr.sidecarImage }}
dapr.io/sidecar-image: {{ toJson . }}
{{- end }}
{{ include "daca.pod.sidecarResources" (dict "root" .root "sidecar" $sidecar "podAnnotations" .part.podAnnotations) }}
{{ include "daca.checksums" .root }}
{{- end }}

{{/*
The container between a sidecar and Dapr's placement service: an entry of initContainers. It starts before the others
and ends after them, by Kubernetes' rules for sidecars. Takes $.
*/}}
{{- define "daca.placementRelay" -}}
{{- $relay := include "daca.pod.part" (dict "root" $ "part" .Values.placementRelay) | fromJson -}}
- name: placement-relay
  restartPolicy: Always
  {{- include "daca.image" (dict "root" $ "part" $relay) | nindent 2 }}
  args:
    - --listen={{ include "daca.placementRelayAddress" . }}
    - {{ printf "--placement=%s" $relay.placement | toJson }}
    - --connect-timeout-ms={{ int $relay.connectTimeoutMs }}
  resources: {{ toJson $relay.resources }}
  securityContext: {{ toJson .Values.containerSecurityContext }}
{{- end }}

{{/* Where a sidecar finds the relay: of its pod alone. Takes $. */}}
{{- define "daca.placementRelayAddress" -}}
127.0.0.1:50005
{{- end }}

{{/*
Names of the release's pods that ask for a sidecar and have none, one on each line; those that are on their way out do
not count. Without a cluster (`helm template`) there are none. Takes $.
*/}}
{{- define "daca.podsWithoutSidecar" -}}
{{- $names := list -}}
{{- range $pod := (lookup "v1" "Pod" .Release.Namespace "").items -}}
{{- $asks := eq (dig "metadata" "annotations" "dapr.io/enabled" "" $pod) "true" -}}
{{- $ours := eq (dig "metadata" "labels" "app.kubernetes.io/instance" "" $pod) $.Release.Name -}}
{{- $stays := not (dig "metadata" "deletionTimestamp" "" $pod) -}}
{{- $has := false -}}
{{- range concat $pod.spec.containers ($pod.spec.initContainers | default list) -}}
{{- $has = or $has (eq .name "daprd") -}}
{{- end -}}
{{- if and $asks $ours $stays (not $has) -}}
{{- $names = append $names $pod.metadata.name -}}
{{- end -}}
{{- end -}}
{{- join "\n" $names -}}
{{- end }}

{{/* Name of the secret by which a sidecar proves itself to its service. Takes $. */}}
{{- define "daca.appTokenSecret" -}}
{{ .Values.dapr.appToken.existingSecret.name | default "app-token" | toJson }}
{{- end }}

{{/* Environment of a service that has a sidecar; the injector adds the rest. Takes $. */}}
{{- define "daca.sidecarEnv" -}}
- name: APP_API_TOKEN
  valueFrom: {secretKeyRef: {name: {{ include "daca.appTokenSecret" . }}, key: token}}
{{- end }}

{{/*
Checksums over what the sidecar reads when it starts, so that a change of it replaces the pods. A password that the
chart made is not among them: it never changes. Takes $.
*/}}
{{- define "daca.checksums" -}}
{{- $dapr := "" -}}
{{- range list "configuration" "deadletters" "pubsub" "resiliency" "secretstore" "statestore" "subscription" -}}
{{- $dapr = print $dapr (include (printf "%s/dapr/%s.yaml" $.Template.BasePath .) $) -}}
{{- end -}}
checksum/dapr: {{ sha256sum $dapr }}
checksum/redis-auth: {{ toJson (dig "auth" dict .Values.redis) | sha256sum }}
{{- end }}

{{/* The volume that `dapr.io/volume-mounts` gives to the sidecar, and to no other container: its way to the Kubernetes API. */}}
{{- define "daca.kubeApiVolume" -}}
- name: kube-api-access
  projected:
    defaultMode: 0444
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end }}
