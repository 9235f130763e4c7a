{{/*
What the services have alike. Each define takes (dict "root" $ "name" NAME "part" PART), where PART is a service's values
with the defaults, as `daca.pod.part` puts them together.
*/}}

{{/* Takes "port" PORT and "env" ENV as well, and "sidecar" true where Dapr's stands beside the service. */}}
{{- define "daca.deployment" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
{{- $part := .part -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .name }}
  labels:
    {{- include "daca.labels" . | nindent 4 }}
spec:
  replicas: {{ toJson $part.replicas }}
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels:
      {{- include "daca.selectorLabels" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "daca.pod.map" (list (include "daca.podLabels" .) $part.podLabels) | nindent 8 }}
      {{- $annotations := list ($part.podAnnotations | default dict) }}
      {{- if .sidecar }}
      {{- $annotations = list (include "daca.sidecarAnnotations" .) (omit (first $annotations) "dapr.io/env") }}
      {{- end }}
      {{- with include "daca.pod.map" $annotations }}
      annotations:
        {{- . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ .name }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ toJson $v.shutdown.terminationGracePeriodSeconds }}
      securityContext: {{ include "daca.pod.together" (list $v.podSecurityContext $part.podSecurityContext) }}
      {{- with include "daca.pod.pullSecrets" . }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- $init := list }}
      {{- if and .sidecar $v.placementRelay.enabled }}
      {{- $init = append $init (include "daca.placementRelay" .root) }}
      {{- end }}
      {{- with include "daca.pod.list" (append $init $part.initContainers) }}
      initContainers:
        {{- . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .name }}
          {{- include "daca.image" . | nindent 10 }}
          ports:
            - {name: http, containerPort: {{ .port }}}
          env:
            {{- include "daca.pod.list" (list .env ($v.defaults | default dict).extraEnv $part.extraEnv) | nindent 12 }}
          {{- include "daca.probes" .root | nindent 10 }}
          lifecycle:
            preStop:
              sleep: {seconds: {{ toJson $v.shutdown.preStopSleepSeconds }}}
          resources: {{ include "daca.pod.resources" (dict "root" $root "resources" $part.resources) }}
          securityContext: {{ include "daca.pod.together" (list $v.containerSecurityContext $part.containerSecurityContext) }}
          volumeMounts:
            {{- $mounts := list "- {name: tmp, mountPath: /tmp}" }}
            {{- if .sidecar }}
            {{- $mounts = append $mounts (include "daca.modelMount" .root) }}
            {{- end }}
            {{- include "daca.pod.list" (append $mounts $part.extraVolumeMounts) | nindent 12 }}
      volumes:
        {{- $volumes := list "- {name: tmp, emptyDir: {}}" }}
        {{- if .sidecar }}
        {{- $volumes = concat $volumes (list (include "daca.kubeApiVolume" .root) (include "daca.modelVolume" .root)) }}
        {{- end }}
        {{- include "daca.pod.list" (append $volumes $part.extraVolumes) | nindent 8 }}
      {{- with include "daca.pod.placement" $part }}
      {{- . | nindent 6 }}
      {{- end }}
{{- end }}

{{- define "daca.service" -}}
{{- $service := .part.service -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  labels:
    {{- include "daca.labels" . | nindent 4 }}
  {{- with $service.annotations }}
  annotations: {{ toJson . }}
  {{- end }}
spec:
  type: {{ $service.type }}
  selector:
    {{- include "daca.selectorLabels" . | nindent 4 }}
  ports:
    - name: http
      port: {{ toJson $service.port }}
      targetPort: http
      {{- with $service.nodePort }}
      nodePort: {{ toJson . }}
      {{- end }}
{{- end }}

{{- define "daca.podDisruptionBudget" -}}
{{- if .part.podDisruptionBudget.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  labels:
    {{- include "daca.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ toJson .part.podDisruptionBudget.maxUnavailable }}
  # A pod that never became ready does not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "daca.selectorLabels" . | nindent 6 }}
{{- end }}
{{- end }}

{{- define "daca.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}
  labels:
    {{- include "daca.labels" . | nindent 4 }}
  {{- with (.part.serviceAccount | default dict).annotations }}
  annotations: {{ toJson . }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}

{{/* What a service account may do in the namespace of the release. Takes "rules" RULES instead of a part. */}}
{{- define "daca.rights" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .name }}
  labels:
    {{- include "daca.labels" . | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "daca.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .name }}
    namespace: {{ toJson .root.Release.Namespace }}
{{- end }}

{{/* The sidecar's secret store runs as this service account; it may read one secret, by name. */}}
{{- define "daca.rightToModelKey" -}}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ toJson .Values.model.existingSecret.name }}]
  verbs: [get]
{{- end }}
