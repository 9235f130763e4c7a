{{/*
Annotations by which Dapr puts its sidecar into a pod.
Takes (dict "root" $ "appId" NAME "port" PORT "sidecar" SIDECAR).
*/}}
{{- define "daca.daprAnnotations" -}}
{{- $dapr := .root.Values.dapr -}}
{{- $shutdown := .root.Values.shutdown -}}
dapr.io/enabled: "true"
dapr.io/app-id: {{ .appId }}
dapr.io/app-port: {{ .port | quote }}
dapr.io/config: daca
dapr.io/log-as-json: "true"
dapr.io/log-level: {{ $dapr.logLevel }}
dapr.io/max-body-size: {{ $dapr.maxBodySize | quote }}
dapr.io/enable-app-health-check: "true"
dapr.io/app-health-check-path: /healthz/app
dapr.io/app-health-probe-interval: {{ $dapr.appHealth.intervalSeconds | quote }}
dapr.io/app-health-probe-timeout: {{ $dapr.appHealth.timeoutMs | quote }}
dapr.io/app-health-threshold: {{ $dapr.appHealth.threshold | quote }}
dapr.io/block-shutdown-duration: {{ printf "%ds" (int $shutdown.sidecarBlockSeconds) }}
dapr.io/graceful-shutdown-seconds: {{ $shutdown.sidecarGraceSeconds | quote }}
dapr.io/app-token-secret: {{ include "daca.appTokenSecret" .root }}
# The component `secretstore` is the only way to a secret, and it is held to one name.
dapr.io/disable-builtin-k8s-secret-store: "true"
dapr.io/volume-mounts: kube-api-access:/var/run/secrets/kubernetes.io/serviceaccount
dapr.io/sidecar-seccomp-profile-type: RuntimeDefault
{{- if .root.Values.placementRelay.enabled }}
dapr.io/placement-host-address: {{ include "daca.placementRelayAddress" .root }}
{{- end }}
{{- with $dapr.sidecarImage }}
dapr.io/sidecar-image: {{ . }}
{{- end }}
{{- with .sidecar.goMemLimit }}
dapr.io/env: GOMEMLIMIT={{ . }}
{{- end }}
{{- with .sidecar.resources.requests.cpu }}
dapr.io/sidecar-cpu-request: {{ . | quote }}
{{- end }}
{{- with .sidecar.resources.requests.memory }}
dapr.io/sidecar-memory-request: {{ . | quote }}
{{- end }}
{{- with .sidecar.resources.limits.cpu }}
dapr.io/sidecar-cpu-limit: {{ . | quote }}
{{- end }}
{{- with .sidecar.resources.limits.memory }}
dapr.io/sidecar-memory-limit: {{ . | quote }}
{{- end }}
{{- end }}

{{/*
The container between a sidecar and Dapr's placement service: an entry of initContainers. It starts before the others
and ends after them, by Kubernetes' rules for sidecars. Takes $.
*/}}
{{- define "daca.placementRelay" -}}
{{- $relay := .Values.placementRelay -}}
- name: placement-relay
  restartPolicy: Always
  image: {{ include "daca.image" (dict "root" $ "image" $relay.image) }}
  imagePullPolicy: {{ $relay.image.pullPolicy }}
  args:
    - --listen={{ include "daca.placementRelayAddress" . }}
    - --placement={{ $relay.placement }}
    - --connect-timeout-ms={{ int $relay.connectTimeoutMs }}
  resources:
    {{- toYaml $relay.resources | nindent 4 }}
  securityContext:
    {{- toYaml .Values.containerSecurityContext | nindent 4 }}
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
{{- $ours := eq (dig "metadata" "labels" "app.kubernetes.io/part-of" "" $pod) "daca" -}}
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
{{ .Values.dapr.appToken.existingSecret.name | default "app-token" }}
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

{{/* How a Dapr component reaches Redis: entries of spec.metadata. Takes $. */}}
{{- define "daca.redisMetadata" -}}
{{- if .Values.redis.enabled -}}
- name: redisHost
  value: redis:6379
- name: redisPassword
  secretKeyRef:
    name: {{ .Values.redis.auth.existingSecret.name | default "redis" }}
    key: {{ .Values.redis.auth.existingSecret.key }}
{{- else -}}
{{- $redis := .Values.externalRedis -}}
- name: redisHost
  value: {{ printf "%s:%d" $redis.host (int $redis.port) }}
- name: redisDB
  value: {{ $redis.database | quote }}
- name: enableTLS
  value: {{ $redis.tls.enabled | quote }}
- name: insecureSkipTLSVerify
  value: {{ $redis.tls.insecureSkipVerify | quote }}
{{- with $redis.username }}
- name: redisUsername
  value: {{ . }}
{{- end }}
{{- with $redis.existingSecret.name }}
- name: redisPassword
  secretKeyRef:
    name: {{ . }}
    key: {{ $redis.existingSecret.key }}
{{- end }}
{{- end }}
# A Redis that restarts is waited for: a write is tried again for about 15 s before it fails.
- name: redisMaxRetries
  value: "10"
- name: redisMinRetryInterval
  value: 100ms
- name: redisMaxRetryInterval
  value: 2s
{{- end }}
