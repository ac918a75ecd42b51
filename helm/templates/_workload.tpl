{{- /* A component that serves: Deployment or StatefulSet, Service, disruption budget, autoscaler. As agentflux.pod. */ -}}
{{- define "agentflux.workload.objects" -}}
{{- $w := include "agentflux.workload" . | fromYaml -}}
{{- $fullname := printf "%s-%s" (include "agentflux.fullname" .root) .name -}}
{{- $kind := .part.kind | default "Deployment" -}}
{{- $scaled := and (ne $w.autoscaling.kind "none") (not .part.keepsState) -}}
apiVersion: apps/v1
kind: {{ $kind }}
metadata:
  name: {{ $fullname }}
  labels: {{- include "agentflux.labels" . | nindent 4 }}
spec:
  {{- if not $scaled }}
  replicas: {{ .part.replicas | default $w.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  selector:
    matchLabels: {{- include "agentflux.selector" . | nindent 6 }}
  {{- if eq $kind "StatefulSet" }}
  serviceName: {{ $fullname }}
  podManagementPolicy: Parallel
  {{- else if .part.recreate }}
  strategy: {type: Recreate}
  {{- else }}
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  {{- end }}
  template: {{- include "agentflux.pod" . | nindent 4 }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $fullname }}
  labels: {{- include "agentflux.labels" . | nindent 4 }}
  {{- with .part.serviceAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if .part.headless }}
  clusterIP: None
  # Clients look at engines by themselves; a name that comes back only after a pod is ready is cached as missing.
  publishNotReadyAddresses: true
  {{- else }}
  type: {{ .part.serviceType | default "ClusterIP" }}
  {{- end }}
  selector: {{- include "agentflux.selector" . | nindent 4 }}
  ports:
    {{- range $name, $port := .part.ports }}
    - {name: {{ $name }}, port: {{ dig "servicePorts" $name $port $.part }}, targetPort: {{ $name }}, protocol: TCP}
    {{- end }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $fullname }}
  labels: {{- include "agentflux.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ $w.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "agentflux.selector" . | nindent 6 }}
{{- if $scaled }}
---
{{- include "agentflux.autoscaler" (dict "root" .root "name" .name "fullname" $fullname "kind" $kind "a" $w.autoscaling) }}
{{- end }}
{{- end -}}

{{- define "agentflux.autoscaler" -}}
{{- if lt (.a.maxReplicas | int) (.a.minReplicas | int) }}
{{- fail (printf "%s.autoscaling: maxReplicas (%d) is less than minReplicas (%d)" .name (.a.maxReplicas | int) (.a.minReplicas | int)) }}
{{- end }}
{{- $behavior := dict "scaleDown" (dict "stabilizationWindowSeconds" 300) }}
{{- if eq .a.kind "hpa" }}
{{- if not (or .a.cpuPercent .a.podMetrics) }}
{{- fail (printf "%s.autoscaling: kind hpa needs cpuPercent or podMetrics" .name) }}
{{- end }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .fullname }}
  labels: {{- include "agentflux.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ .kind }}, name: {{ .fullname }}}
  minReplicas: {{ .a.minReplicas }}
  maxReplicas: {{ .a.maxReplicas }}
  behavior: {{- toYaml $behavior | nindent 4 }}
  metrics:
    {{- if .a.cpuPercent }}
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ .a.cpuPercent }}}}
    {{- end }}
    {{- range $name, $average := .a.podMetrics }}
    - type: Pods
      pods: {metric: {name: {{ $name | quote }}}, target: {type: AverageValue, averageValue: {{ $average | quote }}}}
    {{- end }}
{{- else }}
{{- if not .a.triggers }}
{{- fail (printf "%s.autoscaling: kind keda needs triggers" .name) }}
{{- end }}
{{- $pods := printf "namespace=%q,service=%q" .root.Release.Namespace .fullname }}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ .fullname }}
  labels: {{- include "agentflux.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ .kind }}, name: {{ .fullname }}}
  minReplicaCount: {{ .a.minReplicas }}
  maxReplicaCount: {{ .a.maxReplicas }}
  pollingInterval: 15
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {{- toYaml $behavior | nindent 8 }}
  triggers:
    {{- range .a.triggers }}
    - type: prometheus
      name: {{ .name }}
      metricType: {{ .metricType }}
      metadata:
        serverAddress: {{ $.root.Values.observability.prometheusUrl | quote }}
        threshold: {{ .threshold | toString | quote }}
        query: {{ .query | replace "$pods" $pods | quote }}
    {{- end }}
{{- end }}
{{- end -}}
