{{/* Labels of every object. */}}
{{- define "twill.labels" -}}
{{- merge (dict
  "k8s-app" "flannel"
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_")
  "app.kubernetes.io/name" "twill"
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/version" .Chart.AppVersion
  "app.kubernetes.io/managed-by" .Release.Service
) .Values.global.commonLabels | toYaml -}}
{{- end -}}

{{/* Labels and, if there are any, annotations of an object: (list context labels annotations). */}}
{{- define "twill.metadata" -}}
{{- $context := index . 0 -}}
{{- $labels := index . 1 -}}
{{- $annotations := index . 2 -}}
labels:
  {{- merge (dict) $labels (include "twill.labels" $context | fromYaml) | toYaml | nindent 2 }}
{{- with merge (dict) $annotations $context.Values.global.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "twill.image" -}}
{{- with .Values.flannel.image -}}
{{- if hasSuffix "flannel-io/flannel" .repository -}}
{{- fail (printf "flannel.image.repository is %s, which is flannel and not Twill: leave flannel.image out of your values, or name your copy of Twill's image" .repository) -}}
{{- end -}}
{{- .repository }}:{{ .tag | default $.Chart.AppVersion -}}
{{- end -}}
{{- end -}}

{{/* The Backend object of net-conf.json. */}}
{{- define "twill.backend" -}}
{{- $f := .Values.flannel -}}
{{- if kindIs "map" $f.backend -}}
{{- if not (hasKey $f.backend "Type") -}}
{{- fail "flannel.backend is an object without Type: add it, as in {Type: vxlan}" -}}
{{- end -}}
{{- toJson $f.backend -}}
{{- else -}}
{{- $keys := dict
  "vxlan" (dict "backendPort" "Port" "vni" "VNI" "GBP" "GBP" "learning" "Learning" "directRouting" "DirectRouting" "mtu" "MTU" "macPrefix" "MacPrefix")
  "wireguard" (dict "backendPort" "ListenPort" "backendPortv6" "ListenPortV6" "psk" "PSK" "mtu" "MTU" "tunnelMode" "Mode" "keepaliveInterval" "PersistentKeepaliveInterval")
  "ipip" (dict "directRouting" "DirectRouting")
  "udp" (dict "backendPort" "Port") -}}
{{- $backend := dict "Type" $f.backend -}}
{{- range $value, $key := get $keys $f.backend | default dict -}}
{{- with get $f $value -}}
{{- $_ := set $backend $key . -}}
{{- end -}}
{{- end -}}
{{- toJson $backend -}}
{{- end -}}
{{- end -}}

{{- define "twill.netConf" -}}
{{- $conf := dict "EnableNFTables" .Values.flannel.enableNFTables "Backend" (include "twill.backend" . | fromJson) -}}
{{- if .Values.podCidr -}}
{{- $_ := set $conf "Network" .Values.podCidr -}}
{{- else -}}
{{- $_ := set $conf "EnableIPv4" false -}}
{{- end -}}
{{- if .Values.podCidrv6 -}}
{{- $_ := set $conf "IPv6Network" .Values.podCidrv6 -}}
{{- $_ := set $conf "EnableIPv6" true -}}
{{- end -}}
{{- $more := .Values.flannel.netConf -}}
{{- if hasKey $more "Backends" -}}
{{- $conf = unset $conf "Backend" -}}
{{- end -}}
{{- merge (dict) $more $conf | toPrettyJson -}}
{{- end -}}
