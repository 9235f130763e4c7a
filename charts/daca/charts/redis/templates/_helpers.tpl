{{- define "redis.selectorLabels" -}}
app.kubernetes.io/name: redis
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "redis.labels" -}}
{{ include "redis.selectorLabels" . }}
app.kubernetes.io/part-of: daca
app.kubernetes.io/version: {{ .Values.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "redis.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}

{{/*
The password: the value, else the one that the cluster has, else a new one. Redis keeps it nowhere but in this secret, so
a new release on an old volume may well have a new password.
*/}}
{{- define "redis.password" -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace "redis" | default dict -}}
{{- $kept := dig "data" .Values.auth.existingSecret.key "" $secret | b64dec -}}
{{- .Values.auth.password | default $kept | default (randAlphaNum 32) -}}
{{- end }}

{{/* The password, as redis-cli looks for it. */}}
{{- define "redis.passwordEnv" -}}
- name: REDISCLI_AUTH
  valueFrom:
    secretKeyRef:
      name: {{ .Values.auth.existingSecret.name | default "redis" }}
      key: {{ .Values.auth.existingSecret.key }}
{{- end }}
