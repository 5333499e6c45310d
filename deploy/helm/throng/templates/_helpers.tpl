{{/* The name of the chart. */}}
{{- define "throng.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The prefix of all names. Short enough for the names of pods of jobs. */}}
{{- define "throng.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "throng.selectorLabels" -}}
app.kubernetes.io/name: {{ include "throng.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "throng.labels" -}}
{{ include "throng.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: throng
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "throng.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "throng.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The image; `tag` is that of a component. */}}
{{- define "throng.image" -}}
{{- $tag := default .root.Values.image.tag .tag }}
{{- printf "%s:%s" .root.Values.image.repository (default .root.Chart.AppVersion $tag) }}
{{- end }}

{{/* The file with the node settings. Names of services are hosts by which nodes are reached. */}}
{{- define "throng.nodeSettings" -}}
{{- $fullname := include "throng.fullname" . }}
{{- $hosts := default list .Values.node.allowed_hosts }}
{{- range $name := list "api" "relay" "lookup" }}
{{- $service := printf "%s-%s" $fullname $name }}
{{- $hosts = concat $hosts (list $service (printf "%s.%s" $service $.Release.Namespace) (printf "%s.%s.svc" $service $.Release.Namespace) (printf "%s.%s.svc.cluster.local" $service $.Release.Namespace)) }}
{{- end }}
{{- $settings := merge (dict "listen" "0.0.0.0:7077" "allowed_hosts" ($hosts | uniq)) (deepCopy .Values.node) }}
version: 1
node:
  {{- toYaml $settings | nindent 2 }}
{{- end }}

{{- define "throng.scheme" -}}
{{- if .Values.node.tls }}HTTPS{{ else }}HTTP{{ end }}
{{- end }}

{{/* Variables of a container. */}}
{{- define "throng.env" -}}
- name: HOME
  value: /tmp
{{- range .Values.secretEnv }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secretName }}
      key: {{ .key }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Mounts of a container: root, and whether it reads sources. */}}
{{- define "throng.mounts" -}}
- { name: config, mountPath: /etc/throng, readOnly: true }
- { name: tmp, mountPath: /tmp }
{{- range .root.Values.secretFiles }}
- { name: {{ printf "secret-%s" .name }}, mountPath: {{ printf "/run/secrets/%s" .name }}, readOnly: true }
{{- end }}
{{- if .sources }}
{{- range .root.Values.sources }}
- { name: {{ printf "source-%s" .name }}, mountPath: {{ .mountPath | quote }}, readOnly: true }
{{- end }}
{{- end }}
{{- end }}

{{/* Volumes of a pod: root, whether it reads sources, and whether it has the whole spec. */}}
{{- define "throng.volumes" -}}
{{- $fullname := include "throng.fullname" .root }}
- name: config
  projected:
    sources:
      - configMap: { name: {{ printf "%s-node" $fullname }} }
      {{- if .spec }}
      - configMap: { name: {{ default (printf "%s-spec" $fullname) .root.Values.spec.existingConfigMap }} }
      {{- end }}
- name: tmp
  emptyDir: {}
{{- range .root.Values.secretFiles }}
- name: {{ printf "secret-%s" .name }}
  secret: { secretName: {{ .secretName }}, defaultMode: 288 }   # 0440
{{- end }}
{{- if .sources }}
{{- range .root.Values.sources }}
- name: {{ printf "source-%s" .name }}
  {{- toYaml .volume | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* What is placed on which machines. */}}
{{- define "throng.placement" -}}
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
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* What all pods have. */}}
{{- define "throng.podDefaults" -}}
automountServiceAccountToken: {{ .Values.serviceAccount.automount }}
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The pod template of a component: root, name, of (its values), and whether its data is persistent. */}}
{{- define "throng.podTemplate" -}}
{{- $root := .root }}
{{- $of := .of }}
{{- $applies := and (eq .name "schedule") $root.Values.spec.apply }}
metadata:
  labels:
    {{- include "throng.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
    throng.ads/listens: "true"
    {{- with $root.Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/node: {{ include "throng.nodeSettings" $root | sha256sum }}
    {{- if $applies }}
    checksum/spec: {{ toJson $root.Values.spec.files | sha256sum }}
    {{- end }}
    {{- with $root.Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with $of.annotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "throng.serviceAccountName" $root }}
  {{- include "throng.podDefaults" $root | nindent 2 }}
  terminationGracePeriodSeconds: {{ default 30 $of.terminationGracePeriodSeconds }}
  {{- with include "throng.placement" $of }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if $of.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml $of.topologySpreadConstraints | nindent 4 }}
  {{- else }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "throng.selectorLabels" $root | nindent 10 }}
          app.kubernetes.io/component: {{ .name }}
  {{- end }}
  containers:
    - name: throng
      image: {{ include "throng.image" (dict "root" $root "tag" $of.imageTag) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args:
        - up
        - --dir=/var/lib/throng/node
        - --spec=/etc/throng
        - --roles={{ join "," $of.roles }}
        {{- if not $applies }}
        - --join
        {{- end }}
      ports:
        - { name: http, containerPort: 7077, protocol: TCP }
      env:
        {{- include "throng.env" $root | nindent 8 }}
      {{- $scheme := include "throng.scheme" $root }}
      startupProbe:
        httpGet: { path: /healthz, port: http, scheme: {{ $scheme }} }
        {{- toYaml $root.Values.probes.startup | nindent 8 }}
      livenessProbe:
        httpGet: { path: /healthz, port: http, scheme: {{ $scheme }} }
        {{- toYaml $root.Values.probes.liveness | nindent 8 }}
      readinessProbe:
        httpGet: { path: /readyz, port: http, scheme: {{ $scheme }} }
        {{- toYaml $root.Values.probes.readiness | nindent 8 }}
      securityContext:
        {{- toYaml $root.Values.securityContext | nindent 8 }}
      resources:
        {{- toYaml $of.resources | nindent 8 }}
      volumeMounts:
        - { name: data, mountPath: /var/lib/throng }
        {{- include "throng.mounts" (dict "root" $root "sources" $of.sources) | nindent 8 }}
  volumes:
    {{- if not .persistent }}
    - name: data
      emptyDir: { sizeLimit: {{ $of.data.size }} }
    {{- end }}
    {{- include "throng.volumes" (dict "root" $root "sources" $of.sources "spec" $applies) | nindent 4 }}
{{- end }}

{{/* The spec of an Indexed Job of `throng build`. */}}
{{- define "throng.buildJob" -}}
{{- $build := .Values.build }}
completionMode: Indexed
completions: {{ $build.completions }}
parallelism: {{ $build.parallelism }}
backoffLimitPerIndex: {{ $build.backoffLimit }}
activeDeadlineSeconds: {{ $build.activeDeadlineSeconds }}
ttlSecondsAfterFinished: {{ $build.ttlSecondsAfterFinished }}
# A pod that is evicted or stopped by SIGTERM (75) does not count. The spec (2) concerns all pods; an audience that needs a
# person (3) only those of its index.
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions: [{ type: DisruptionTarget, status: "True" }]
    - action: FailJob
      onExitCodes: { containerName: throng, operator: In, values: [2] }
    - action: FailIndex
      onExitCodes: { containerName: throng, operator: In, values: [3] }
    - action: Ignore
      onExitCodes: { containerName: throng, operator: In, values: [75] }
template:
  metadata:
    labels:
      {{- include "throng.labels" . | nindent 6 }}
      app.kubernetes.io/component: build-job
      {{- with .Values.podLabels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with .Values.podAnnotations }}
    annotations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  spec:
    restartPolicy: Never
    serviceAccountName: {{ include "throng.serviceAccountName" . }}
    {{- include "throng.podDefaults" . | nindent 4 }}
    terminationGracePeriodSeconds: {{ $build.terminationGracePeriodSeconds }}
    {{- with include "throng.placement" $build }}
    {{- . | nindent 4 }}
    {{- end }}
    containers:
      - name: throng
        image: {{ include "throng.image" (dict "root" . "tag" "") }}
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        args:
          - build
          - --dir=/var/lib/throng/node
          - --spec=/etc/throng
          - --join
          {{- if $build.force }}
          - --force
          {{- end }}
          {{- range $build.audiences }}
          - {{ . | quote }}
          {{- end }}
        env:
          # Kubernetes sets JOB_COMPLETION_INDEX.
          - name: JOB_COMPLETIONS
            value: {{ $build.completions | quote }}
          {{- include "throng.env" . | nindent 10 }}
        securityContext:
          {{- toYaml .Values.securityContext | nindent 10 }}
        resources:
          {{- toYaml $build.resources | nindent 10 }}
        volumeMounts:
          - { name: data, mountPath: /var/lib/throng }
          {{- include "throng.mounts" (dict "root" . "sources" true) | nindent 10 }}
    volumes:
      - name: data
        emptyDir: { sizeLimit: {{ $build.data.size }} }
      {{- include "throng.volumes" (dict "root" . "sources" true "spec" false) | nindent 6 }}
{{- end }}
