{{/* Redis' values with the defaults, as JSON. The defaults' tag is that of the project's own images. Takes $. */}}
{{- define "daca.redisPart" -}}
{{- $part := include "daca.pod.part" (dict "root" $ "part" .Values.redis) | fromJson -}}
{{- $_ := set $part.image "tag" .Values.redis.image.tag -}}
{{- toJson $part -}}
{{- end }}

{{- define "daca.redisLabels" -}}
{{- $labels := include "daca.labels" (dict "root" $ "name" "redis") -}}
{{- $version := regexFind "^[0-9A-Za-z._-]*" (.Values.redis.image.tag | default "") | trunc 63 | trimAll "-._" -}}
{{- include "daca.pod.map" (list $labels (dict "app.kubernetes.io/version" $version)) -}}
{{- end }}

{{- define "daca.redisImage" -}}
{{- $image := (include "daca.redisPart" . | fromJson).image -}}
image: {{ include "daca.pod.image" (dict "root" $ "image" $image "tag" "") }}
imagePullPolicy: {{ $image.pullPolicy | default "IfNotPresent" }}
{{- end }}

{{/* Where the password is, as a container reads it. Takes $. */}}
{{- define "daca.redisPasswordRef" -}}
{{- $secret := .Values.redis.auth.existingSecret -}}
{{- dict "name" ($secret.name | default "redis") "key" $secret.key | toJson -}}
{{- end }}

{{/*
The password: the value, else the one that the cluster has, else a new one. Redis keeps it nowhere but in this secret, so
a new release on an old volume may well have a new password.
*/}}
{{- define "daca.redisPassword" -}}
{{- $auth := .Values.redis.auth -}}
{{- $secret := lookup "v1" "Secret" .Release.Namespace "redis" | default dict -}}
{{- $kept := dig "data" $auth.existingSecret.key "" $secret | b64dec -}}
{{- $auth.password | default $kept | default (randAlphaNum 32) -}}
{{- end }}

{{/* How a Dapr component reaches Redis: entries of spec.metadata. Takes $. */}}
{{- define "daca.redisMetadata" -}}
{{- $redis := .Values.externalRedis -}}
{{- if .Values.redis.enabled -}}
- name: redisHost
  value: redis:6379
- name: redisPassword
  secretKeyRef: {{ include "daca.redisPasswordRef" . }}
{{- else -}}
- name: redisHost
  value: {{ include "daca.redisAddress" . | toJson }}
- name: redisDB
  value: {{ include "daca.pod.text" $redis.database }}
- name: enableTLS
  value: {{ include "daca.pod.text" $redis.tls.enabled }}
- name: insecureSkipTLSVerify
  value: {{ include "daca.pod.text" $redis.tls.insecureSkipVerify }}
{{- with $redis.username }}
- name: redisUsername
  value: {{ toJson . }}
{{- end }}
{{- with $redis.existingSecret.name }}
- name: redisPassword
  secretKeyRef: {{ dict "name" . "key" $redis.existingSecret.key | toJson }}
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

{{/* host:port of the external Redis; an IPv6 address stands in brackets. Takes $. */}}
{{- define "daca.redisAddress" -}}
{{- $host := .Values.externalRedis.host | trimAll "[]" -}}
{{- printf "%s:%d" (contains ":" $host | ternary (print "[" $host "]") $host) (int .Values.externalRedis.port) -}}
{{- end }}

{{/* Annotations by which a change of what Redis reads when it starts replaces its pod. Takes $. */}}
{{- define "daca.redisAnnotations" -}}
kubectl.kubernetes.io/default-container: redis
checksum/config: {{ include (print $.Template.BasePath "/redis/configmap.yaml") . | sha256sum }}
# Not over the secret: a password that the chart made never changes, and is another at each look before it exists.
checksum/auth: {{ toJson .Values.redis.auth | sha256sum }}
{{- end }}
