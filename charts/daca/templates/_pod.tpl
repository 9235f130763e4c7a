{{/*
What the pods of charts/daca and charts/load-tests are made of; the file is the same in both. Whatever comes from a value
is written as JSON, which is YAML in which nothing can be mistaken: a name `1e3`, `on` or `2026-11-26` stays text, and a
number is written as one types it (Helm has every number of a file as a float: 1e+06).
*/}}

{{/* A value as text, for what Kubernetes wants as text: 3 becomes "3". Takes the value. */}}
{{- define "daca.pod.text" -}}
{{- if kindIs "string" . -}}{{ toJson . }}{{- else -}}{{ toJson . | quote }}{{- end -}}
{{- end }}

{{/* A map, a line for each key; of what is said twice the last counts. Takes a list of maps, or of YAML of maps. */}}
{{- define "daca.pod.map" -}}
{{- $all := dict -}}
{{- range $map := . -}}
{{- if kindIs "string" $map -}}{{- $map = fromYaml $map -}}{{- end -}}
{{- range $key, $value := $map -}}{{- $_ := set $all $key $value -}}{{- end -}}
{{- end -}}
{{- $lines := list -}}
{{- range $key, $value := $all -}}{{- $lines = append $lines (printf "%s: %s" (toJson $key) (toJson $value)) -}}{{- end -}}
{{- join "\n" $lines -}}
{{- end }}

{{/*
A list of things with names (variables, volumes, secrets), a line for each. Of those of one name the last counts, because
Kubernetes and GitOps tools refuse a second. Takes a list of lists, or of YAML of lists.
*/}}
{{- define "daca.pod.list" -}}
{{- $all := list -}}
{{- range $items := . -}}
{{- if kindIs "string" $items -}}{{- $items = fromYamlArray $items -}}{{- end -}}
{{- range $items -}}{{- $all = append $all (kindIs "string" . | ternary (dict "name" .) .) -}}{{- end -}}
{{- end -}}
{{- $seen := dict -}}
{{- $kept := list -}}
{{- range reverse $all -}}
{{- if not (hasKey $seen .name) -}}{{- $kept = prepend $kept (print "- " (toJson .)) -}}{{- end -}}
{{- $_ := set $seen .name true -}}
{{- end -}}
{{- join "\n" $kept -}}
{{- end }}

{{/*
Maps put together key by key, as JSON: the last that says something counts, and what is empty says nothing. Takes a list
of maps.
*/}}
{{- define "daca.pod.together" -}}
{{- $all := dict -}}
{{- range $map := . -}}
{{- range $key, $value := $map -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $all $key)) -}}
{{- $value = include "daca.pod.together" (list (get $all $key) $value) | fromJson -}}
{{- end -}}
{{- if or (not (hasKey $all $key)) (not (has (toJson $value) (list "null" "\"\"" "[]" "{}"))) -}}
{{- $_ := set $all $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $all -}}
{{- end }}

{{/*
A part of the chart as its values and the defaults say together, as JSON. Takes (dict "root" $ "part" VALUES).
*/}}
{{- define "daca.pod.part" -}}
{{- include "daca.pod.together" (list (.root.Values.defaults | default dict) .part) -}}
{{- end }}

{{/*
Reference of an image. Its digest is taken from where it was written: a field of its own, the tag or the repository. Takes
(dict "root" $ "image" IMAGE "tag" TAG); the tag stands where the image says nothing else.
*/}}
{{- define "daca.pod.image" -}}
{{- $digest := "[a-z0-9]+:[0-9a-f]{64,128}$" -}}
{{- $name := .image.repository -}}
{{- $tag := .image.tag | default "" -}}
{{- $pinned := .image.digest | default (regexFind $digest $tag) | default (regexFind $digest $name) -}}
{{- $name = regexReplaceAll (print "@" $digest) $name "" -}}
{{- $tag = regexReplaceAll (print "@?" $digest) $tag "" -}}
{{- with .image.registry | default (.root.Values.global | default dict).imageRegistry -}}
{{- $name = print (trimSuffix "/" .) "/" (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $name "") -}}
{{- end -}}
{{- if not (or $tag $pinned (regexMatch ":[^/]*$" $name)) -}}
{{- $tag = .tag -}}
{{- end -}}
{{- print $name (empty $tag | ternary "" (print ":" $tag)) (empty $pinned | ternary "" (print "@" $pinned)) | toJson -}}
{{- end }}

{{/* Secrets that pods pull images with. Takes (dict "root" $ "part" PART). */}}
{{- define "daca.pod.pullSecrets" -}}
{{- $v := .root.Values -}}
{{- with include "daca.pod.list" (list ($v.global | default dict).imagePullSecrets $v.imagePullSecrets .part.imagePullSecrets) -}}
imagePullSecrets:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where pods may run, and what else only their user knows of them. Takes a part. */}}
{{- define "daca.pod.placement" -}}
{{- $part := . -}}
{{- $told := dict -}}
{{- range $name := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" -}}
{{- with get $part $name -}}{{- $_ := set $told $name . -}}{{- end -}}
{{- end -}}
{{- include "daca.pod.map" (list $told $part.extraPodSpec) -}}
{{- end }}

{{/* Requests and limits of a container, in which the defaults fill what it leaves open. Takes (dict "root" $ "resources" RESOURCES). */}}
{{- define "daca.pod.resources" -}}
{{- include "daca.pod.together" (list ((.root.Values.defaults | default dict).resources | default dict) (.resources | default dict)) -}}
{{- end }}

{{/*
Annotations about the resources of a Dapr sidecar, and its environment, to which a pod's own annotation may add. Takes
(dict "root" $ "sidecar" SIDECAR "podAnnotations" ANNOTATIONS).
*/}}
{{- define "daca.pod.sidecarResources" -}}
{{- $sidecar := .sidecar | default dict -}}
{{- $resources := include "daca.pod.resources" (dict "root" .root "resources" $sidecar.resources) | fromJson -}}
{{- $told := dict -}}
{{- range $bound, $word := dict "requests" "request" "limits" "limit" -}}
{{- range $of := list "cpu" "memory" -}}
{{- with get (get $resources $bound | default dict) $of -}}
{{- $_ := set $told (printf "dapr.io/sidecar-%s-%s" $of $word) (kindIs "string" . | ternary . (toJson .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $env := list -}}
{{- with $sidecar.goMemLimit -}}{{- $env = append $env (print "GOMEMLIMIT=" .) -}}{{- end -}}
{{- with get (.podAnnotations | default dict) "dapr.io/env" -}}{{- $env = append $env . -}}{{- end -}}
{{- with $env -}}{{- $_ := set $told "dapr.io/env" (join "," .) -}}{{- end -}}
{{- include "daca.pod.map" (list $told) -}}
{{- end }}

{{/* What is wrong with images, a line for each. Takes (dict PATH IMAGE ...). */}}
{{- define "daca.pod.wrongImages" -}}
{{- $wrong := list -}}
{{- range $path, $image := . -}}
{{- $tag := regexReplaceAll "@?sha[0-9]+:[0-9a-f]+$" ($image.tag | default "") "" -}}
{{- if and $tag (regexMatch ":[^/]*$" (regexReplaceAll "@.*$" $image.repository "")) -}}
{{- $wrong = append $wrong (printf "%s.repository (%s) has a tag, and %s.tag is %s: leave one of them out" $path $image.repository $path $tag) -}}
{{- end -}}
{{- end -}}
{{- join "\n" $wrong -}}
{{- end }}
