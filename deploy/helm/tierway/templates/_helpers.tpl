{{- define "tierway.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tierway.selector" -}}
app.kubernetes.io/name: tierway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tierway.labels" -}}
{{ include "tierway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "tierway.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "tierway.sqlite" -}}
{{- if eq .Values.store.type "sqlite" -}}yes{{- end -}}
{{- end -}}

{{- define "tierway.secret" -}}
{{- required "existingSecret: name a Secret with the keys admin-token, metrics-token and, for PostgreSQL, store-url" .Values.existingSecret -}}
{{- end -}}

{{- define "tierway.configMap" -}}
{{- .Values.existingConfigMap | default (include "tierway.name" .) -}}
{{- end -}}

{{- define "tierway.claim" -}}
{{- .Values.store.volume.existingClaim | default (include "tierway.name" .) -}}
{{- end -}}

{{- define "tierway.scheme" -}}
{{- ternary "HTTPS" "HTTP" (not (empty .Values.tls.existingSecret)) -}}
{{- end -}}

{{- /* More than one pod, now or later. */ -}}
{{- define "tierway.several" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}yes{{- end -}}
{{- end -}}

{{- /* What no schema can say. Included once, by the Deployment. */ -}}
{{- define "tierway.refuse" -}}
{{- if and (include "tierway.sqlite" .) (include "tierway.several" .) -}}
{{- fail "store.type sqlite is one file of one gateway: set replicas to 1 and autoscaling.enabled to false, or store.type to postgres" -}}
{{- end -}}
{{- if and .Values.config .Values.existingConfigMap -}}
{{- fail "config and existingConfigMap: set one of them" -}}
{{- end -}}
{{- if not (or .Values.config .Values.existingConfigMap) -}}
{{- fail "config: give the gateway's tierway.toml (--set-file config=tierway.toml), or name it by existingConfigMap" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- end -}}
