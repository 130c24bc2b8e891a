{{- define "offhook.labels" -}}
app.kubernetes.io/name: offhook
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "offhook.annotations" -}}
# A changed configuration restarts the pods, one after another.
checksum/config: {{ .Values.config | sha256sum }}
{{- end }}

{{- define "offhook.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "offhook.container" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "offhook.environment" -}}
- name: OFFHOOK_SECRET_FILE
  value: /etc/offhook/secrets/secret
- name: OFFHOOK_REDIS_URL_FILE
  value: /etc/offhook/secrets/redis-url
- name: OFFHOOK_REVOKED
  value: /etc/offhook/secrets/revoked.json
{{- end }}

{{- define "offhook.mounts" -}}
- name: config
  mountPath: /etc/offhook/offhook.toml
  subPath: offhook.toml
  readOnly: true
- name: secrets
  mountPath: /etc/offhook/secrets
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- end }}

{{- define "offhook.volumes" -}}
- name: config
  configMap: {name: "{{ .Release.Name }}-config"}
- name: secrets
  secret: {secretName: "{{ .Values.secretName }}", defaultMode: 288}
- name: tmp
  emptyDir: {}
{{- end }}
