{{/* Labels of everything that belongs to a part. Takes (dict "root" $ "name" NAME). */}}
{{- define "daca.labels" -}}
{{- include "daca.pod.map" (list (include "daca.ownLabels" .) (.root.Values.defaults | default dict).labels) -}}
{{- end }}

{{- define "daca.ownLabels" -}}
{{ include "daca.podLabels" . }}
app.kubernetes.io/version: {{ toJson .root.Chart.AppVersion }}
app.kubernetes.io/managed-by: {{ toJson .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | toJson }}
{{- end }}

{{/* Labels of a part's pods: those that a new version of the chart leaves alone. Takes (dict "root" $ "name" NAME). */}}
{{- define "daca.podLabels" -}}
{{ include "daca.selectorLabels" . }}
app.kubernetes.io/part-of: daca
{{- end }}

{{/* What a Service or Deployment finds its pods by. Takes (dict "root" $ "name" NAME). */}}
{{- define "daca.selectorLabels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ toJson .root.Release.Name }}
{{- end }}

{{/* Image of a container. Takes (dict "root" $ "part" PART), where the part has the values `image`. */}}
{{- define "daca.image" -}}
image: {{ include "daca.pod.image" (dict "root" .root "image" .part.image "tag" .root.Chart.AppVersion) }}
imagePullPolicy: {{ .part.image.pullPolicy | default "IfNotPresent" }}
{{- end }}

{{/* The three probes of a service's container. Takes $. */}}
{{- define "daca.probes" -}}
{{- $live := dict "httpGet" (dict "path" "/livez" "port" "http") -}}
{{- $ready := dict "httpGet" (dict "path" "/readyz" "port" "http") -}}
startupProbe: {{ include "daca.pod.together" (list $live .Values.probes.startup) }}
livenessProbe: {{ include "daca.pod.together" (list $live .Values.probes.liveness) }}
readinessProbe: {{ include "daca.pod.together" (list $ready .Values.probes.readiness) }}
{{- end }}

{{/* Environment of every service. Takes (dict "root" $ "part" PART "port" PORT). */}}
{{- define "daca.env" -}}
- {name: PORT, value: {{ include "daca.pod.text" .port }}}
- {name: LOG_LEVEL, value: {{ .part.logLevel | default "INFO" | toJson }}}
- {name: SHUTDOWN_GRACE_SECONDS, value: {{ include "daca.pod.text" .root.Values.shutdown.graceSeconds }}}
{{- end }}

{{/* Environment of a service that calls the model. Takes $. */}}
{{- define "daca.modelEnv" -}}
- {name: MODEL_PROVIDER, value: {{ toJson .Values.model.provider }}}
- {name: MODEL_NAME, value: {{ toJson .Values.model.name }}}
- {name: MODEL_BASE_URL, value: {{ toJson .Values.model.baseUrl }}}
- {name: MODEL_TIMEOUT_SECONDS, value: {{ include "daca.pod.text" .Values.model.timeoutSeconds }}}
- {name: MODEL_CA_FILE, value: {{ ternary "/etc/daca/model-ca/ca.crt" "" (ne .Values.model.ca.name "") | toJson }}}
- {name: SECRET_STORE, value: secretstore}
- {name: MODEL_SECRET_NAME, value: {{ toJson .Values.model.existingSecret.name }}}
- {name: MODEL_SECRET_KEY, value: {{ toJson .Values.model.existingSecret.key }}}
{{- end }}

{{/* The volume of a service that calls the model, and where it is mounted. Both take $. */}}
{{- define "daca.modelVolume" -}}
{{- with .Values.model.ca -}}
{{- if .name -}}
- name: model-ca
  {{- $items := list (dict "key" .key "path" "ca.crt") }}
  {{- if eq .kind "Secret" }}
  secret: {secretName: {{ toJson .name }}, items: {{ toJson $items }}}
  {{- else }}
  configMap: {name: {{ toJson .name }}, items: {{ toJson $items }}}
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
  "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000
  "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- $quantity := toString . -}}
{{- $unit := regexFind "[A-Za-z]+$" $quantity -}}
{{- mulf (trimSuffix $unit $quantity | float64) (get $units $unit | default 1) | int64 -}}
{{- end }}
