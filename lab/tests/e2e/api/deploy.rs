//! What ships for a cluster, put before a real API server.

use std::env;
use std::process::Command;

use serde_json::{Value, json};
use twill_lab::{KubePrograms, Kubectl, Lab, MANIFEST};

use super::{api, programs};
use crate::common::{bare_lab, skip};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/twill");
const DAEMON_SET: [&str; 5] = ["get", "daemonset", "kube-flannel-ds", "--namespace", "kube-flannel"];

fn server() -> Option<Lab> {
    let programs = programs(KubePrograms::ANY)?;
    if !programs.is_complete() {
        skip("api::deploy", "this server has no DaemonSets");
        return None;
    }
    bare_lab(|spec| (spec.api, spec.nodes) = (Some(programs), 1))
}

/// Lets the server judge objects, and keep nothing: their names, or its error.
fn judge(kubectl: &Kubectl, manifests: &str) -> Result<Vec<String>, String> {
    let apply = ["apply", "--dry-run=server", "--validate=true", "--output=name", "-f", "-"];
    match kubectl.run_with(&apply, manifests) {
        Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn the_server_takes_the_plain_manifests() {
    let Some(lab) = server() else { return };
    let kubectl = api(&lab).kubectl();
    let names = judge(kubectl, MANIFEST).unwrap();
    assert_eq!(
        names,
        [
            "namespace/kube-flannel",
            "serviceaccount/flannel",
            "clusterrole.rbac.authorization.k8s.io/flannel",
            "clusterrolebinding.rbac.authorization.k8s.io/flannel",
            "configmap/kube-flannel-cfg",
            "daemonset.apps/kube-flannel-ds"
        ]
    );
    let misspelt = MANIFEST.replace("hostNetwork: true", "hostNetwrk: true");
    let said = judge(kubectl, &misspelt).unwrap_err();
    assert!(said.contains("unknown field \"hostNetwrk\""), "{said}");
    let wrong = MANIFEST.replace("drop: [ALL]", "drop: ALL");
    judge(kubectl, &wrong).unwrap_err();
    judge(kubectl, include_str!("../../../../deploy/kubernetes/beside-flannel/rbac.yaml")).unwrap();
}

#[test]
fn the_server_takes_what_the_chart_renders() {
    let test = "api::deploy::the_server_takes_what_the_chart_renders";
    let Some(helm) = env::var_os("TWILL_HELM") else {
        return skip(test, "TWILL_HELM names no helm; `cargo xtask test` looks for one");
    };
    let Some(lab) = server() else { return };
    let kubectl = api(&lab).kubectl();
    let everything = json!({
        "podCidrv6": "fd00:10:244::/56", "besideFlannel": true, "netpol": { "enabled": true },
        "global": { "imagePullSecrets": [{ "name": "s" }], "commonLabels": { "a": "b" }, "commonAnnotations": { "c": "d" } },
        "flannel": {
            "backend": { "Type": "vxlan", "VNI": 7 }, "env": [{ "name": "TWILL_LOG", "value": "debug" }],
            "nodeSelector": { "e": "f" }, "podAnnotations": { "g": "h" }, "updateStrategy": { "type": "OnDelete" },
        },
    });
    let least = json!({ "flannel": {
        "healthz": { "port": 0 }, "skipCNIConfigInstallation": true, "resources": null, "tolerations": [],
    } });
    for values in [json!({}), everything, least] {
        let file = lab.node(0).path("values.yaml");
        std::fs::write(&file, values.to_string()).unwrap();
        let mut template = Command::new(&helm);
        template.args(["template", "twill", CHART, "--namespace", "kube-flannel", "--values"]).arg(file);
        let said = template.output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let names = judge(kubectl, &String::from_utf8(said.stdout).unwrap()).unwrap();
        assert_eq!(names.len(), 5, "{values}: {names:?}");
    }
}

/// A DaemonSet as flannel's manifest makes it, as far as lists in it have to be replaced.
fn flannels(selector: &Value) -> Value {
    let host = |name: &str, path: &str| json!({ "name": name, "hostPath": { "path": path } });
    let mount = |name: &str, path: &str| json!({ "name": name, "mountPath": path });
    let image = "ghcr.io/flannel-io/flannel:v0.28.9";
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": "kube-flannel-ds", "namespace": "kube-flannel", "labels": { "app": "flannel" } },
        "spec": {
            "selector": { "matchLabels": selector },
            "template": {
                "metadata": { "labels": { "tier": "node", "app": "flannel", "k8s-app": "flannel" } },
                "spec": {
                    "hostNetwork": true,
                    "serviceAccountName": "flannel",
                    "tolerations": [{ "operator": "Exists", "effect": "NoSchedule" }],
                    "initContainers": [
                        {
                            "name": "install-cni-plugin", "image": "ghcr.io/flannel-io/flannel-cni-plugin:v1.9.1-flannel3",
                            "command": ["cp"], "args": ["-f", "/flannel", "/opt/cni/bin/flannel"],
                            "volumeMounts": [mount("cni-plugin", "/opt/cni/bin")],
                        },
                        {
                            "name": "install-cni", "image": image, "command": ["/opt/bin/install-conf"],
                            "args": ["/etc/kube-flannel/cni-conf.json", "/etc/cni/net.d/10-flannel.conflist"],
                            "volumeMounts": [mount("cni", "/etc/cni/net.d"), mount("flannel-cfg", "/etc/kube-flannel/")],
                        },
                    ],
                    "containers": [{
                        "name": "kube-flannel", "image": image, "command": ["/opt/bin/flanneld"],
                        "args": ["--ip-masq", "--kube-subnet-mgr", "--healthz-port=8081"],
                        "securityContext": { "privileged": false, "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } },
                        "env": [
                            { "name": "EVENT_QUEUE_DEPTH", "value": "5000" },
                            { "name": "CONT_WHEN_CACHE_NOT_READY", "value": "false" },
                        ],
                        "volumeMounts": [mount("run", "/run/flannel"), mount("flannel-cfg", "/etc/kube-flannel/")],
                    }],
                    "volumes": [
                        host("run", "/run/flannel"), host("cni-plugin", "/opt/cni/bin"), host("cni", "/etc/cni/net.d"),
                        { "name": "flannel-cfg", "configMap": { "name": "kube-flannel-cfg" } },
                    ],
                },
            },
        },
    })
}

#[test]
fn apply_replaces_flannel_in_place() {
    let Some(lab) = server() else { return };
    let kubectl = api(&lab).kubectl();
    kubectl.apply(&flannels(&json!({ "app": "flannel" })).to_string()).unwrap();
    let before = kubectl.json(&DAEMON_SET).unwrap();
    kubectl.apply(MANIFEST).unwrap();
    let after = kubectl.json(&DAEMON_SET).unwrap();
    assert_eq!(
        after["metadata"]["uid"], before["metadata"]["uid"],
        "the same object, so its pods are replaced one by one"
    );
    let pod = &after["spec"]["template"]["spec"];
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&pod["initContainers"]), ["install-cni-plugin"]);
    assert_eq!(names(&pod["containers"]), ["kube-flannel"]);
    assert_eq!(names(&pod["containers"][0]["env"]), ["NODE_NAME", "POD_NAME", "POD_NAMESPACE"]);
    assert_eq!(
        pod["initContainers"][0]["command"],
        json!(["/opt/bin/twill", "install-cni"]),
        "nothing of flannel's command is left"
    );
    assert_eq!(pod["initContainers"][0]["args"], json!(["--bin-dir=/opt/cni/bin"]));
    assert_eq!(pod["containers"][0]["image"], pod["initContainers"][0]["image"]);
    assert_eq!(pod["containers"][0]["securityContext"]["capabilities"]["drop"], json!(["ALL"]));

    // And back.
    kubectl.apply(&flannels(&json!({ "app": "flannel" })).to_string()).unwrap();
    let back = kubectl.json(&DAEMON_SET).unwrap();
    assert_eq!(back["spec"]["template"]["spec"]["containers"], before["spec"]["template"]["spec"]["containers"]);
    assert_eq!(names(&back["spec"]["template"]["spec"]["initContainers"]), ["install-cni-plugin", "install-cni"]);
}

#[test]
fn another_selector_is_refused_with_the_words_of_the_install_page() {
    let Some(lab) = server() else { return };
    let kubectl = api(&lab).kubectl();
    kubectl.apply(&flannels(&json!({ "app": "flannel", "k8s-app": "flannel" })).to_string()).unwrap();
    let said = kubectl.run_with(&["apply", "-f", "-"], MANIFEST).unwrap_err().to_string();
    assert!(said.contains("spec.selector") && said.contains("field is immutable"), "{said}");
}
