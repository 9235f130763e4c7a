{{/* Labels of everything that belongs to a part. Takes (dict "root" $ "name" NAME). */}}
{{- define "daca.labels" -}}
{{ include "daca.podLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels of a part's pods: those that a new version of the chart leaves alone. Takes (dict "root" $ "name" NAME). */}}
{{- define "daca.podLabels" -}}
{{ include "daca.selectorLabels" . }}
app.kubernetes.io/part-of: daca
{{- end }}

{{/* What a Service or Deployment finds its pods by. Takes (dict "root" $ "name" NAME). */}}
{{- define "daca.selectorLabels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{/* Reference of a service's image. Takes (dict "root" $ "image" IMAGE). */}}
{{- define "daca.image" -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{/* Where a pod may run. Takes a service's values. */}}
{{- define "daca.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* The three probes of a service's container. Takes $. */}}
{{- define "daca.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: http}
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: http}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: http}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
{{- end }}

{{/* Environment of every service. Takes (dict "root" $ "values" SERVICE "port" PORT). */}}
{{- define "daca.env" -}}
- {name: PORT, value: {{ .port | quote }}}
- {name: LOG_LEVEL, value: {{ .values.logLevel }}}
- {name: SHUTDOWN_GRACE_SECONDS, value: {{ .root.Values.shutdown.graceSeconds | quote }}}
{{- end }}

{{/* Environment of a service that calls the model. Takes $. */}}
{{- define "daca.modelEnv" -}}
- {name: MODEL_PROVIDER, value: {{ .Values.model.provider }}}
- {name: MODEL_NAME, value: {{ .Values.model.name | quote }}}
- {name: MODEL_BASE_URL, value: {{ .Values.model.baseUrl | quote }}}
- {name: MODEL_TIMEOUT_SECONDS, value: {{ .Values.model.timeoutSeconds | quote }}}
- {name: MODEL_CA_FILE, value: {{ ternary "/etc/daca/model-ca/ca.crt" "" (ne .Values.model.ca.name "") | quote }}}
- {name: SECRET_STORE, value: secretstore}
- {name: MODEL_SECRET_NAME, value: {{ .Values.model.existingSecret.name | quote }}}
- {name: MODEL_SECRET_KEY, value: {{ .Values.model.existingSecret.key | quote }}}
{{- end }}

{{/* The volume of a service that calls the model, and where it is mounted. Both take $. */}}
{{- define "daca.modelVolume" -}}
{{- with .Values.model.ca -}}
{{- if .name -}}
- name: model-ca
  {{- $items := list (dict "key" .key "path" "ca.crt") }}
  {{- if eq .kind "Secret" }}
  secret: {secretName: {{ .name | quote }}, items: {{ toJson $items }}}
  {{- else }}
  configMap: {name: {{ .name | quote }}, items: {{ toJson $items }}}
  {{- end }}
{{- end -}}
{{- end -}}
{{- end }}
{{- define "daca.modelMount" -}}
{{- if .Values.model.ca.name -}}
- {name: model-ca, mountPath: /etc/daca/model-ca, readOnly: true}
{{- end -}}
{{- end }}

{{/* A duration such as 1m30s in milliseconds: Helm reads one only where it moves a date. Takes the duration. */}}
{{- define "daca.milliseconds" -}}
{{- $start := toDate "2006" "2000" -}}
{{- sub ($start | dateModify .).UnixMilli $start.UnixMilli -}}
{{- end }}

{{/* A memory quantity of Kubernetes (1Gi), or of Redis (768mb, which is 768Mi), in bytes. Takes the quantity. */}}
{{- define "daca.bytes" -}}
{{- $units := dict
  "kb" 1024 "mb" 1048576 "gb" 1073741824
  "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000
  "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $quantity := toString . -}}
{{- $unit := regexFind "[A-Za-z]+$" $quantity -}}
{{- mulf (trimSuffix $unit $quantity | float64) (get $units $unit | default 1) | int64 -}}
{{- end }}
