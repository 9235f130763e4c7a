{{/* The release's name, short enough for what is put behind it in the names of pods. Takes $. */}}
{{- define "load-tests.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Name of the CronJob whose Jobs let faults happen on nodes. Takes $. */}}
{{- define "load-tests.nodeFaults" -}}
{{ include "load-tests.name" . }}-node-faults
{{- end }}

{{/* Name of what is in another namespace, or in none. Takes $. */}}
{{- define "load-tests.distantName" -}}
{{ include "load-tests.name" . }}-{{ .Release.Namespace }}
{{- end }}

{{/* Name of a Job. It has the revision in it: a Job can't be changed, and each upgrade is a run of its own. Takes (dict "root" $ "component" COMPONENT). */}}
{{- define "load-tests.job" -}}
{{ include "load-tests.name" .root }}-{{ .component }}-{{ .root.Release.Revision }}
{{- end }}

{{/* Labels of everything of the release. Takes $. */}}
{{- define "load-tests.labels" -}}
app.kubernetes.io/name: load-tests
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: load-tests
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What a Service finds the master of this run by. Takes $. */}}
{{- define "load-tests.masterSelector" -}}
app.kubernetes.io/name: load-tests
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: master
load-tests/run: {{ .Release.Revision | quote }}
{{- end }}

{{/* Labels and annotations of a pod. Takes (dict "root" $ "component" COMPONENT "sidecar" BOOL). */}}
{{- define "load-tests.podMetadata" -}}
{{- $v := .root.Values -}}
labels:
  {{- include "load-tests.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  load-tests/run: {{ .root.Release.Revision | quote }}
  {{- with $v.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # A run can't go on elsewhere.
  cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
  {{- if .sidecar }}
  {{- include "load-tests.daprAnnotations" .root | nindent 2 }}
  {{- end }}
  {{- with $v.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Annotations by which Dapr puts its sidecar into a pod. Takes $. */}}
{{- define "load-tests.daprAnnotations" -}}
{{- $sidecar := .Values.sidecar -}}
dapr.io/enabled: "true"
dapr.io/app-id: load-tests
# A sidecar in Kubernetes' own sense: it starts before the load and is ended after it, however that ends.
dapr.io/enable-native-sidecar: "true"
dapr.io/config: {{ $sidecar.configuration }}
dapr.io/log-as-json: "true"
dapr.io/log-level: {{ $sidecar.logLevel }}
dapr.io/graceful-shutdown-seconds: "1"
dapr.io/disable-builtin-k8s-secret-store: "true"
dapr.io/sidecar-seccomp-profile-type: RuntimeDefault
{{- if .Values.placementRelay.enabled }}
dapr.io/placement-host-address: {{ include "load-tests.placementRelayAddress" . }}
{{- end }}
{{- with $sidecar.goMemLimit }}
dapr.io/env: GOMEMLIMIT={{ . }}
{{- end }}
{{- with $sidecar.resources.requests.cpu }}
dapr.io/sidecar-cpu-request: {{ . | quote }}
{{- end }}
{{- with $sidecar.resources.requests.memory }}
dapr.io/sidecar-memory-request: {{ . | quote }}
{{- end }}
{{- with $sidecar.resources.limits.cpu }}
dapr.io/sidecar-cpu-limit: {{ . | quote }}
{{- end }}
{{- with $sidecar.resources.limits.memory }}
dapr.io/sidecar-memory-limit: {{ . | quote }}
{{- end }}
{{- end }}

{{/*
The container between a sidecar and Dapr's placement service: an entry of initContainers. It starts before the others
and ends after them, by Kubernetes' rules for sidecars. Takes $.
*/}}
{{- define "load-tests.placementRelay" -}}
{{- $relay := .Values.placementRelay -}}
- name: placement-relay
  restartPolicy: Always
  image: {{ $relay.image.repository }}:{{ $relay.image.tag | default .Chart.AppVersion }}
  imagePullPolicy: {{ $relay.image.pullPolicy }}
  args:
    - --listen={{ include "load-tests.placementRelayAddress" . }}
    - --placement=dapr-placement-server.{{ .Values.daprNamespace }}.svc:50005
    - --connect-timeout-ms={{ int $relay.connectTimeoutMs }}
  resources:
    {{- toYaml $relay.resources | nindent 4 }}
  securityContext:
    {{- toYaml .Values.containerSecurityContext | nindent 4 }}
{{- end }}

{{/* Where a sidecar finds the relay: of its pod alone. Takes $. */}}
{{- define "load-tests.placementRelayAddress" -}}
127.0.0.1:50005
{{- end }}

{{/* What every pod's spec begins with. Takes $. */}}
{{- define "load-tests.podSpec" -}}
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Image and security of every container. Takes $. */}}
{{- define "load-tests.container" -}}
image: {{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
{{- end }}

{{/* Starts Locust with a container's args. Takes $. */}}
{{- define "load-tests.command" -}}
command:
  - sh
  - -c
  - |
    {{- .Files.Get "files/start.sh" | trimSuffix "\n" | nindent 4 }}
  - locust
{{- end }}

{{/* Seconds after which Kubernetes ends a Job. Takes $. */}}
{{- define "load-tests.deadline" -}}
{{ add .Values.run.timeSeconds .Values.run.graceSeconds }}
{{- end }}

{{/* One option of Locust as items of a list. Takes (list NAME VALUE); true is a mere flag, false and empty are left out. */}}
{{- define "load-tests.option" -}}
{{- $name := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "bool" $value -}}
{{- if $value }}
- --{{ $name }}
{{- end -}}
{{- else if kindIs "slice" $value }}
- --{{ $name }}
{{- range $value }}
- {{ include "load-tests.text" . | quote }}
{{- end -}}
{{- else if ne (toString $value) "" }}
- --{{ $name }}
- {{ include "load-tests.text" $value | quote }}
{{- end -}}
{{- end }}

{{/* A number as one types it: Helm has every number as a float, and would write 100000 as 1e+05. */}}
{{- define "load-tests.text" -}}
{{- if kindIs "float64" . -}}
{{- if eq (floor .) . }}{{ printf "%.0f" . }}{{ else }}{{ toJson . }}{{ end -}}
{{- else }}{{ . }}{{ end -}}
{{- end }}

{{/* What master and workers are told alike. Classes before the options, which may take any number of words. Takes $. */}}
{{- define "load-tests.arguments" -}}
{{- $run := .Values.run -}}
{{- include "load-tests.option" (list "host" .Values.target.url) }}
{{- include "load-tests.option" (list "memory-host" .Values.target.memoryUrl) }}
{{- include "load-tests.option" (list "namespace" .Release.Namespace) }}
{{- include "load-tests.option" (list "dapr-namespace" .Values.daprNamespace) }}
{{- include "load-tests.option" (list "shape" $run.shape) }}
{{- include "load-tests.option" (list "scenario" $run.scenario) }}
{{- if .Values.nodeFaults.enabled }}
{{- include "load-tests.option" (list "node-faults" (include "load-tests.nodeFaults" .)) }}
{{- end }}
{{- range $run.userClasses }}
- {{ . }}
{{- end }}
{{- range $name, $value := $run.options }}
{{- include "load-tests.option" (list $name $value) }}
{{- end }}
{{- end }}

{{/* The master's way to the Kubernetes API; in no other container. */}}
{{- define "load-tests.kubeApiVolume" -}}
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
