{{- /*
The one template of every pod: services, engine, Valkey, trainer, test.

(dict "root" $ "name" "gateway" "part" $part), where $part describes the container:
  image        key of .Values.images
  command      list
  settings     prefix of the settings, such as AGENTFLUX_GATEWAY_; their values are in env and in the component's config
  env          environment variables by name; numbers, booleans, lists and maps as the settings read them (JSON)
  secretEnv    environment variables by name: {secret, key}
  ports        by name
  probes       {startup, liveness, readiness}: what a probe asks
  mounts       list of {path, one of claim|secret|empty|memory, readOnly}
  gpu          {count, resourceName}
  endSeconds   what it needs to end after its drain, beyond the usual
  restart      restart policy
And of what serves: kind, replicas where they are fixed, keepsState where nothing may scale it, recreate, headless, serviceType,
servicePorts, serviceAnnotations.
*/ -}}
{{- define "agentflux.pod" -}}
{{- $w := include "agentflux.workload" . | fromYaml -}}
{{- $values := .root.Values -}}
{{- $part := .part -}}
{{- /* drain_timeout_s has a default in the service, which a test holds against this one. */ -}}
{{- $drain := ternary (dig "config" "drain_timeout_s" 30 $w) 0 (hasKey $w "config") -}}
metadata:
  labels:
    {{- with $w.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
    {{- include "agentflux.labels" . | nindent 4 }}
  {{- with $w.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with $values.global.imagePullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  serviceAccountName: {{ include "agentflux.serviceAccount" .root | quote }}
  automountServiceAccountToken: false
  # A Service that is named vllm would set VLLM_PORT, which vLLM reads as its own.
  enableServiceLinks: false
  restartPolicy: {{ $part.restart | default "Always" }}
  terminationGracePeriodSeconds: {{ add $w.preStopSeconds (ceil $drain) ($part.endSeconds | default 0) 10 }}
  {{- with $w.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with $w.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with $w.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $w.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $w.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $part.probes }}
  {{- with $w.topologySpread }}
  topologySpreadConstraints:
    {{- range . }}
    - {{- toYaml . | nindent 6 }}
      labelSelector:
        matchLabels: {{- include "agentflux.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    {{- with $w.runAsUser }}
    runAsUser: {{ int64 . }}
    runAsGroup: {{ int64 . }}
    fsGroup: {{ int64 . }}
    fsGroupChangePolicy: OnRootMismatch
    {{- end }}
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: {{ .name }}
      image: {{ include "agentflux.image" (dict "root" .root "image" $part.image) | quote }}
      imagePullPolicy: {{ $values.imagePullPolicy }}
      command: {{- toYaml $part.command | nindent 8 }}
      env: {{- include "agentflux.env" (dict "part" $part "w" $w) | nindent 8 }}
      {{- with $w.extraEnvFrom }}
      envFrom: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $part.ports }}
      ports:
        {{- range $name, $port := . }}
        - {name: {{ $name }}, containerPort: {{ $port }}, protocol: TCP}
        {{- end }}
      {{- end }}
      {{- with $part.probes }}
      # Starting may take two minutes; a dependency that is away makes a pod unready, and never restarts it.
      startupProbe: {{- merge (dict "periodSeconds" 2 "failureThreshold" 60 "timeoutSeconds" 5) .startup | toYaml | nindent 8 }}
      livenessProbe: {{- merge (dict "periodSeconds" 10 "failureThreshold" 6 "timeoutSeconds" 5) .liveness | toYaml | nindent 8 }}
      readinessProbe: {{- merge (dict "periodSeconds" 5 "failureThreshold" 2 "timeoutSeconds" 4) .readiness | toYaml | nindent 8 }}
      {{- end }}
      {{- if $part.probes }}
      {{- if $w.preStopSeconds }}
      lifecycle:
        preStop:
          exec: {command: [sleep, {{ $w.preStopSeconds | toString | quote }}]}
      {{- end }}
      {{- end }}
      {{- $resources := deepCopy ($w.resources | default dict) }}
      {{- with $part.gpu }}
      {{- $resources = mergeOverwrite $resources (dict "limits" (merge (dict .resourceName (.count | int)) ($resources.limits | default dict))) }}
      {{- end }}
      resources: {{- toYaml $resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        runAsNonRoot: true
        capabilities: {drop: [ALL]}
        seccompProfile: {type: RuntimeDefault}
      volumeMounts:
        {{- range $i, $mount := $part.mounts }}
        - {name: {{ include "agentflux.volume" $mount }}, mountPath: {{ $mount.path }}{{ if $mount.readOnly }}, readOnly: true{{ end }}}
        {{- end }}
        - {name: tmp, mountPath: /tmp}
        {{- with $w.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    {{- range $part.mounts }}
    - name: {{ include "agentflux.volume" . }}
      {{- if .claim }}
      persistentVolumeClaim: {claimName: {{ .claim | quote }}{{ if .readOnly }}, readOnly: true{{ end }}}
      {{- else if .secret }}
      secret: {secretName: {{ .secret | quote }}, defaultMode: 0440}
      {{- else if .memory }}
      emptyDir: {medium: Memory, sizeLimit: {{ .memory | quote }}}
      {{- else }}
      emptyDir: {sizeLimit: {{ .empty | quote }}}
      {{- end }}
    {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: {{ $w.tmpSize | quote }}}
    {{- with $w.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end -}}

{{- /* A volume is called after the last part of its path. */ -}}
{{- define "agentflux.volume" -}}
{{ base .path }}
{{- end -}}

{{- define "agentflux.env" -}}
{{- $env := dict "HOME" "/tmp" "XDG_CACHE_HOME" "/tmp/cache" -}}
{{- range $name, $value := .w.config -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $env (printf "%s%s" $.part.settings (upper $name)) $value -}}
{{- end -}}
{{- end -}}
{{- $env = mergeOverwrite $env (.part.env | default dict) -}}
{{- range $name, $value := $env }}
- name: {{ $name }}
  # JSON writes a large number in full, where a template would write 1e+06.
  value: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- range $name, $from := .part.secretEnv }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $from.secret | quote }}, key: {{ $from.key | quote }}}}
{{- end }}
{{- with .w.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* What every service answers, on the port of that name: (dict "port" "http"). */ -}}
{{- define "agentflux.httpProbes" -}}
startup: {httpGet: {path: /livez, port: {{ .port }}}}
liveness: {httpGet: {path: /livez, port: {{ .port }}}}
readiness: {httpGet: {path: /readyz, port: {{ .port }}}}
{{- end -}}

{{- /* Settings of logs and traces: (dict "root" $ "prefix" "AGENTFLUX_GATEWAY_"). */ -}}
{{- define "agentflux.observed" -}}
{{ .prefix }}LOG_LEVEL: {{ .root.Values.observability.logLevel }}
{{- with .root.Values.observability.otlpEndpoint }}
{{ $.prefix }}OTLP_ENDPOINT: {{ . | quote }}
{{- end }}
{{- end -}}

{{- /* Volumes of the base model and the adapters, as everybody reads them. */ -}}
{{- define "agentflux.readOnlyMounts" -}}
{{- if .Values.storage.models.enabled -}}
- {path: /models, claim: {{ include "agentflux.claim" (dict "root" . "name" "models") | quote }}, readOnly: true}
{{ end -}}
- {path: /adapters, claim: {{ include "agentflux.claim" (dict "root" . "name" "adapters") | quote }}, readOnly: true}
{{- end -}}
