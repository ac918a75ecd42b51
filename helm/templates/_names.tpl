{{- /* How things are called. */ -}}

{{- define "agentflux.fullname" -}}
{{- with .Values.fullnameOverride -}}
{{ . }}
{{- else -}}
{{- $name := ternary .Release.Name (printf "%s-agentflux" .Release.Name) (contains "agentflux" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels that never change: (dict "root" $ "name" "gateway"). */ -}}
{{- define "agentflux.selector" -}}
app.kubernetes.io/name: agentflux
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{- define "agentflux.labels" -}}
{{ include "agentflux.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: agentflux
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "agentflux.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "agentflux.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- /* An image with a registry and a tag or digest: (dict "root" $ "image" "service"). */ -}}
{{- define "agentflux.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- if not (regexMatch "(:[^/]+|@sha256:[0-9a-f]+)$" $image) -}}
{{- $image = printf "%s:%s%s" $image .root.Chart.AppVersion (ternary (printf "-%s" .root.Values.engine.device) "" (eq .image "engine")) -}}
{{- end -}}
{{- with .root.Values.global.imageRegistry -}}
{{- $image = printf "%s/%s" (trimSuffix "/" .) $image -}}
{{- end -}}
{{- $image -}}
{{- end -}}

{{- /* A claim: (dict "root" $ "name" "adapters"). */ -}}
{{- define "agentflux.claim" -}}
{{- (index .root.Values.storage .name).existingClaim | default (printf "%s-%s" (include "agentflux.fullname" .root) .name) -}}
{{- end -}}

{{- define "agentflux.authSecret" -}}
{{- .Values.auth.existingSecret | default (printf "%s-api-key" (include "agentflux.fullname" .)) -}}
{{- end -}}

{{- define "agentflux.redisSecret" -}}
{{- .Values.redis.existingSecret | default (printf "%s-valkey" (include "agentflux.fullname" .)) -}}
{{- end -}}

{{- define "agentflux.redisKey" -}}
{{- ternary .Values.redis.key "redis-url" (ne .Values.redis.existingSecret "") -}}
{{- end -}}

{{- /* Every engine by its own name, as conversations stay with one; those beyond today's replicas are left out while nobody
       answers there. */ -}}
{{- define "agentflux.engineUrls" -}}
{{- $w := include "agentflux.workload" (dict "root" . "name" "engine") | fromYaml -}}
{{- $most := ternary ($w.replicas | int) ($w.autoscaling.maxReplicas | int) (eq $w.autoscaling.kind "none") -}}
{{- $name := printf "%s-engine" (include "agentflux.fullname" .) -}}
{{- $urls := list -}}
{{- range $i := until (max 1 $most | int) -}}
{{- $urls = append $urls (printf "http://%s-%d.%s:8000" $name $i $name) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end -}}

{{- /* What was set for one component, and the defaults for the rest. */ -}}
{{- define "agentflux.workload" -}}
{{- $own := index .root.Values .name -}}
{{- $all := mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy $own) -}}
{{- /* The limits of the defaults may lie below a component's requests. */ -}}
{{- if hasKey $own "resources" -}}
{{- $_ := set $all "resources" $own.resources -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}
