{{/*
The release's name as a Service may be called: begun by a letter and without dots. Short enough for what is put behind it
in the names of pods. Takes $.
*/}}
{{- define "load-tests.name" -}}
{{- $name := .Release.Name | replace "." "-" -}}
{{ regexMatch "^[a-z]" $name | ternary $name (print "load-tests-" $name) | trunc 40 | trimSuffix "-" }}
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
{{- include "daca.pod.map" (list (include "load-tests.ownLabels" .) (.Values.defaults | default dict).labels) -}}
{{- end }}

{{- define "load-tests.ownLabels" -}}
app.kubernetes.io/name: load-tests
app.kubernetes.io/instance: {{ toJson .Release.Name }}
app.kubernetes.io/part-of: load-tests
app.kubernetes.io/version: {{ toJson .Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ toJson .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | toJson }}
{{- end }}

{{/* What a Service finds the master of this run by. Takes $. */}}
{{- define "load-tests.masterSelector" -}}
app.kubernetes.io/name: load-tests
app.kubernetes.io/instance: {{ toJson .Release.Name }}
app.kubernetes.io/component: master
load-tests/run: {{ include "daca.pod.text" .Release.Revision }}
{{- end }}

{{/* Labels and annotations of a pod. Takes (dict "root" $ "component" COMPONENT "sidecar" BOOL). */}}
{{- define "load-tests.podMetadata" -}}
{{- $v := .root.Values -}}
{{- $labels := dict "app.kubernetes.io/component" .component "load-tests/run" (toString .root.Release.Revision) -}}
{{- /* A run can't go on elsewhere. */ -}}
{{- $annotations := list (dict "cluster-autoscaler.kubernetes.io/safe-to-evict" "false") ($v.podAnnotations | default dict) -}}
{{- if .sidecar -}}
{{- $annotations = list (first $annotations) (include "load-tests.sidecarAnnotations" .root) (omit (last $annotations) "dapr.io/env") -}}
{{- end -}}
labels:
  {{- include "daca.pod.map" (list (include "load-tests.labels" .root) $labels $v.podLabels) | nindent 2 }}
annotations:
  {{- include "daca.pod.map" $annotations | nindent 2 }}
{{- end }}

{{/* Annotations by which Dapr puts its sidecar into a pod. Takes $. */}}
{{- define "load-tests.sidecarAnnotations" -}}
{{- $sidecar := .Values.sidecar -}}
dapr.io/enabled: "true"
dapr.io/app-id: load-tests
# A sidecar in Kubernetes' own sense: it starts before the load and is ended after it, however that ends.
dapr.io/enable-native-sidecar: "true"
dapr.io/config: {{ toJson $sidecar.configuration }}
dapr.io/log-as-json: "true"
dapr.io/log-level: {{ $sidecar.logLevel }}
dapr.io/graceful-shutdown-seconds: "1"
dapr.io/disable-builtin-k8s-secret-store: "true"
dapr.io/sidecar-seccomp-profile-type: RuntimeDefault
{{- if .Values.placementRelay.enabled }}
dapr.io/placement-host-address: {{ include "load-tests.placementRelayAddress" . }}
{{- end }}
{{ include "daca.pod.sidecarResources" (dict "root" $ "sidecar" $sidecar "podAnnotations" .Values.podAnnotations) }}
{{- end }}

{{/*
The container between a sidecar and Dapr's placement service: an entry of initContainers. It starts before the others
and ends after them, by Kubernetes' rules for sidecars. Takes $.
*/}}
{{- define "load-tests.placementRelay" -}}
{{- $relay := include "daca.pod.part" (dict "root" $ "part" .Values.placementRelay) | fromJson -}}
- name: placement-relay
  restartPolicy: Always
  image: {{ include "daca.pod.image" (dict "root" $ "image" $relay.image "tag" .Chart.AppVersion) }}
  imagePullPolicy: {{ $relay.image.pullPolicy | default "IfNotPresent" }}
  args:
    - --listen={{ include "load-tests.placementRelayAddress" . }}
    - {{ printf "--placement=dapr-placement-server.%s.svc:50005" .Values.daprNamespace | toJson }}
    - --connect-timeout-ms={{ int $relay.connectTimeoutMs }}
  resources: {{ toJson $relay.resources }}
  securityContext: {{ toJson .Values.containerSecurityContext }}
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
terminationGracePeriodSeconds: {{ toJson .Values.terminationGracePeriodSeconds }}
securityContext: {{ toJson .Values.podSecurityContext }}
{{- with include "daca.pod.pullSecrets" (dict "root" $ "part" dict) }}
{{ . }}
{{- end }}
{{- with include "daca.pod.placement" .Values }}
{{ . }}
{{- end }}
{{- end }}

{{/* Image of every container but the relay. Takes $. */}}
{{- define "load-tests.image" -}}
{{- $image := (include "daca.pod.part" (dict "root" $ "part" (dict "image" .Values.image)) | fromJson).image -}}
image: {{ include "daca.pod.image" (dict "root" $ "image" $image "tag" .Chart.AppVersion) }}
imagePullPolicy: {{ $image.pullPolicy | default "IfNotPresent" }}
{{- end }}

{{/* Image and security of a container. Takes $. */}}
{{- define "load-tests.container" -}}
{{ include "load-tests.image" . }}
securityContext: {{ toJson .Values.containerSecurityContext }}
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
- {{ include "daca.pod.text" . }}
{{- end -}}
{{- else if not (has (toJson $value) (list "\"\"" "null")) }}
- --{{ $name }}
- {{ include "daca.pod.text" $value }}
{{- end -}}
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
{{- if (.Values.nodeFaults | default dict).enabled }}
{{- include "load-tests.option" (list "node-faults" (include "load-tests.nodeFaults" .)) }}
{{- end }}
{{- range $run.userClasses }}
- {{ toJson . }}
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
