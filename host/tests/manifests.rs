//! What `deploy/` ships: the plain manifests, what kustomize makes of them, and what the chart renders. Nothing of it is
//! simulated: kubectl builds, Helm's own engine renders, the daemon's own reader reads net-conf.json.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io, thread};

use serde_json::{Value, json};
use twill::config::NetConf;

const CNI_CONF: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
"#;

const NET_CONF: &str = r#"{
  "Network": "10.244.0.0/16",
  "EnableNFTables": false,
  "Backend": {
    "Type": "vxlan"
  }
}
"#;

/// Objects by kind and name.
type Objects = BTreeMap<(String, String), Value>;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn objects(yaml: &str) -> Objects {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let named = |object: Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        ((text(&object["kind"]), text(&object["metadata"]["name"])), object)
    };
    let count = all.len();
    let objects: Objects = all.into_iter().map(named).collect();
    assert_eq!(objects.len(), count, "an object twice");
    objects
}

fn object(objects: &Objects, kind: &str, name: &str) -> Value {
    objects.get(&(kind.to_owned(), name.to_owned())).unwrap_or_else(|| panic!("no {kind} {name}")).clone()
}

fn plain() -> Objects {
    objects(&std::fs::read_to_string(deploy().join("kubernetes/kube-flannel.yaml")).unwrap())
}

/// Says loudly that a test did not run, around the capture of the test runner.
fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(io::stderr(), "SKIPPED {test}: {why}");
}

/// Runs Helm with values: what it said, or its error.
fn helm(arguments: &[&str], values: &Value) -> Option<Result<String, String>> {
    let Some(helm) = env::var_os("TWILL_HELM") else {
        skip("TWILL_HELM names no helm; `cargo xtask test` looks for one, or for Python's pip to fetch its library");
        return None;
    };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{values}").unwrap();
    let said = Command::new(helm).args(arguments).arg("--values").arg(file.path()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Some(if said.status.success() { Ok(text(said.stdout)) } else { Err(text(said.stderr)) })
}

fn rendered(values: &Value) -> Option<Result<Objects, String>> {
    let chart = deploy().join("helm/twill");
    let arguments = ["template", "twill", chart.to_str().unwrap(), "--namespace", "kube-flannel"];
    helm(&arguments, values).map(|said| said.map(|text| objects(&text)))
}

fn net_conf(objects: &Objects) -> Value {
    let config = object(objects, "ConfigMap", "kube-flannel-cfg");
    let text = config["data"]["net-conf.json"].as_str().unwrap();
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn pod(objects: &Objects) -> Value {
    object(objects, "DaemonSet", "kube-flannel-ds")["spec"]["template"]["spec"].clone()
}

fn daemon_args(objects: &Objects) -> Vec<String> {
    let args = pod(objects)["containers"][0]["args"].clone();
    serde_json::from_value(args).unwrap()
}

#[test]
fn the_files_in_the_config_map_are_flannels_bytes() {
    let config = object(&plain(), "ConfigMap", "kube-flannel-cfg");
    assert_eq!(config["data"], json!({ "cni-conf.json": CNI_CONF, "net-conf.json": NET_CONF }));
    assert_eq!(config["metadata"]["labels"], json!({ "tier": "node", "k8s-app": "flannel", "app": "flannel" }));
    let conf = NetConf::parse(NET_CONF).unwrap();
    assert_eq!(conf.backends.iter().map(|b| b.kind.as_str()).collect::<Vec<_>>(), ["vxlan"]);
}

#[test]
fn names_and_selector_are_flannels() {
    let names: Vec<String> = plain().into_keys().map(|(kind, name)| format!("{kind} {name}")).collect();
    assert_eq!(
        names,
        [
            "ClusterRole flannel",
            "ClusterRoleBinding flannel",
            "ConfigMap kube-flannel-cfg",
            "DaemonSet kube-flannel-ds",
            "Namespace kube-flannel",
            "ServiceAccount flannel"
        ]
    );
    let set = object(&plain(), "DaemonSet", "kube-flannel-ds");
    assert_eq!(set["spec"]["selector"], json!({ "matchLabels": { "app": "flannel" } }));
    assert_eq!(
        daemon_args(&plain())[..3],
        ["--ip-masq", "--kube-subnet-mgr", "--healthz-port=8081"],
        "flannel's command line comes first"
    );
}

#[test]
fn rights_are_the_least() {
    let role = object(&plain(), "ClusterRole", "flannel");
    assert_eq!(
        role["rules"],
        json!([
            { "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"] },
            { "apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"] },
            { "apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"] },
        ])
    );
    let pod = pod(&plain());
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for (list, added) in [("initContainers", Value::Null), ("containers", json!(["NET_ADMIN", "NET_RAW"]))] {
        for container in pod[list].as_array().unwrap() {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["privileged"], Value::Null);
            assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
            assert_eq!(context["capabilities"]["add"], added);
        }
    }
}

/// What tells of pods is there to be read, and no more; and nothing of it is in the image, where an empty folder would look
/// like a machine without pods.
#[test]
fn what_tells_of_pods_is_read_only() {
    let writable = |pod: &Value, path: &str| {
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        let mount = mounts.iter().find(|mount| mount["mountPath"] == path).unwrap_or_else(|| panic!("no {path}"));
        let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        assert_eq!(volume["hostPath"]["path"], path, "the daemon looks for it where the machine has it");
        mount["readOnly"] != true
    };
    let containerd = twill::pool::RUNTIME_DIRS[0];
    for path in ["/var/lib/cni", "/var/run/netns", containerd] {
        assert!(!writable(&pod(&plain()), path), "{path}");
    }
    assert!(!daemon_args(&plain()).iter().any(|argument| argument.contains("reclaim")));

    let values = json!({ "flannel": { "addresses": { "reclaim": true, "runtimeDirs": ["/a", "/b"] } } });
    let Some(rendered) = rendered(&values) else { return };
    let rendered = rendered.unwrap();
    let pod = pod(&rendered);
    assert!(writable(&pod, "/var/lib/cni"));
    for path in ["/var/run/netns", "/a", "/b"] {
        assert!(!writable(&pod, path), "{path}");
    }
    let given: Vec<String> = daemon_args(&rendered);
    for flag in ["--reclaim-addresses", "--runtime-dir=/a", "--runtime-dir=/b"] {
        assert!(given.iter().any(|argument| argument == flag), "{given:?}");
    }
}

#[test]
fn kustomize_takes_the_base_and_its_components() {
    let dir = tempfile::tempdir_in(deploy()).unwrap();
    let overlay = "resources: [../kubernetes]\ncomponents: [../kubernetes/own-node-only, ../kubernetes/beside-flannel]\n\
                   images: [{name: localhost/twill, newName: registry.example/twill, newTag: '7'}]\n";
    std::fs::write(dir.path().join("kustomization.yaml"), overlay).unwrap();
    let said = match Command::new("kubectl").arg("kustomize").arg(dir.path()).output() {
        Ok(said) => said,
        Err(error) => return skip(&format!("kubectl: {error}")),
    };
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let built = objects(&String::from_utf8(said.stdout).unwrap());
    for ((kind, name), given) in plain() {
        let mut built = object(&built, &kind, &name);
        if kind == "DaemonSet" {
            for container in ["initContainers", "containers"].map(|list| format!("/spec/template/spec/{list}/0/image"))
            {
                let image = built.pointer_mut(&container).unwrap();
                assert_eq!(*image, "registry.example/twill:7");
                *image = given.pointer(&container).unwrap().clone();
            }
        }
        assert_eq!(built, given, "{kind} {name}");
    }
    assert_eq!(object(&built, "ClusterRole", "flannel-own-pod")["rules"][0]["resources"], json!(["pods"]));
    object(&built, "ValidatingAdmissionPolicy", "flannel-own-node-only");
}

#[test]
fn the_chart_passes_helms_linter() {
    let chart = deploy().join("helm/twill");
    let Some(said) = helm(&["lint", chart.to_str().unwrap()], &json!({})) else { return };
    said.unwrap();
}

/// Labels tell a chart's objects from others, so they are left out.
fn without_labels(mut object: Value) -> Value {
    for place in ["/metadata", "/spec/template/metadata"] {
        if let Some(metadata) = object.pointer_mut(place).and_then(Value::as_object_mut) {
            metadata.remove("labels");
        }
    }
    object
}

#[test]
fn the_chart_by_default_is_the_plain_manifests() {
    let Some(rendered) = rendered(&json!({})) else { return };
    let (mut rendered, mut plain) = (rendered.unwrap(), plain());
    plain.remove(&("Namespace".into(), "kube-flannel".into()));
    assert_eq!(net_conf(&rendered), serde_json::from_str::<Value>(NET_CONF).unwrap());
    for objects in [&mut rendered, &mut plain] {
        let config = objects.get_mut(&("ConfigMap".into(), "kube-flannel-cfg".into())).unwrap();
        config["data"]["net-conf.json"].take();
    }
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&rendered), names(&plain));
    let labels = |objects: &Objects| {
        object(objects, "DaemonSet", "kube-flannel-ds")["spec"]["template"]["metadata"]["labels"].clone()
    };
    for (key, value) in labels(&plain).as_object().unwrap() {
        assert_eq!(labels(&rendered)[key], *value);
    }
    for (key, object) in plain {
        assert_eq!(without_labels(rendered.remove(&key).unwrap()), without_labels(object), "{key:?}");
    }
}

#[test]
fn the_charts_policy_is_the_plain_one() {
    let Some(rendered) = rendered(&json!({ "policy": { "enabled": true } })) else { return };
    let rendered = rendered.unwrap();
    let plain = objects(&std::fs::read_to_string(deploy().join("kubernetes/own-node-only/policy.yaml")).unwrap());
    for ((kind, name), policy) in plain {
        assert_eq!(without_labels(object(&rendered, &kind, &name)), without_labels(policy));
    }
}

#[test]
fn flannels_values_reach_net_conf() {
    let cases = [
        (json!({}), json!({ "Type": "vxlan" })),
        (
            json!({ "backendPort": 4789, "vni": 4096, "GBP": true, "directRouting": true, "mtu": 1400, "macPrefix": "0E-2A" }),
            json!({ "Type": "vxlan", "Port": 4789, "VNI": 4096, "GBP": true, "DirectRouting": true, "MTU": 1400, "MacPrefix": "0E-2A" }),
        ),
        (json!({ "backend": "host-gw", "mtu": 1400 }), json!({ "Type": "host-gw" })),
        (json!({ "backend": "udp", "backendPort": 8285 }), json!({ "Type": "udp", "Port": 8285 })),
        (json!({ "backend": "ipip", "directRouting": true }), json!({ "Type": "ipip", "DirectRouting": true })),
        (
            json!({ "backend": "wireguard", "backendPort": 1, "backendPortv6": 2, "psk": "++8+EjRWeJD77z4SNFZ4kPvvPhI0VniQ++8+EjRWeJA=", "tunnelMode": "separate", "keepaliveInterval": 25, "mtu": 1400 }),
            json!({ "Type": "wireguard", "ListenPort": 1, "ListenPortV6": 2, "PSK": "++8+EjRWeJD77z4SNFZ4kPvvPhI0VniQ++8+EjRWeJA=", "Mode": "separate", "PersistentKeepaliveInterval": 25, "MTU": 1400 }),
        ),
        // Ours: an object of any shape.
        (
            json!({ "backend": { "Type": "mine", "Text": "a: \"b\"\n{{ c }}", "Deep": { "List": [1, "2", null, true] } } }),
            json!({ "Type": "mine", "Text": "a: \"b\"\n{{ c }}", "Deep": { "List": [1, "2", null, true] } }),
        ),
    ];
    for (values, backend) in cases {
        let Some(rendered) = rendered(&json!({ "flannel": values })) else { return };
        let conf = net_conf(&rendered.unwrap());
        assert_eq!(conf["Backend"], backend, "{values}");
        assert_eq!(NetConf::parse(&conf.to_string()).unwrap().backends[0].kind, backend["Type"].as_str().unwrap());
    }
}

#[test]
fn families_and_more_keys_reach_net_conf() {
    let cases = [
        (
            json!({ "podCidrv6": "fd00::/56" }),
            json!({ "Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00::/56" }),
        ),
        (
            json!({ "podCidr": "", "podCidrv6": "fd00::/56" }),
            json!({ "EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00::/56" }),
        ),
        (
            json!({ "flannel": { "enableNFTables": true } }),
            json!({ "Network": "10.244.0.0/16", "EnableNFTables": true }),
        ),
        (
            json!({ "flannel": { "netConf": { "Network": "10.0.0.0/8", "Extra": [1] } } }),
            json!({ "Network": "10.0.0.0/8", "Extra": [1] }),
        ),
    ];
    for (values, wanted) in cases {
        let Some(rendered) = rendered(&values) else { return };
        let mut conf = net_conf(&rendered.unwrap());
        NetConf::parse(&conf.to_string()).unwrap();
        let conf = conf.as_object_mut().unwrap();
        conf.remove("Backend");
        if wanted["EnableNFTables"].is_null() {
            assert_eq!(conf.remove("EnableNFTables"), Some(json!(false)));
        }
        assert_eq!(Value::Object(conf.clone()), wanted, "{values}");
    }
    let several = json!({ "flannel": { "netConf": { "Backends": [{ "Type": "host-gw" }, { "Type": "vxlan" }] } } });
    let Some(rendered) = rendered(&several) else { return };
    let conf = net_conf(&rendered.unwrap());
    assert_eq!(conf["Backend"], Value::Null, "Backends goes alone");
    assert_eq!(NetConf::parse(&conf.to_string()).unwrap().backends.len(), 2);
}

#[test]
fn values_reach_the_daemon_set() {
    let values = json!({
        "global": { "imagePullSecrets": [{ "name": "secret" }], "commonLabels": { "team": "net" }, "commonAnnotations": { "a": "1" } },
        "flannel": {
            "args": ["--ip-masq", "--kube-subnet-mgr", "--iface=eth1"],
            "cniBinDir": "/usr/libexec/cni", "cniConfDir": "/etc/rancher/cni",
            "daemonSet": { "labels": { "l": "set" }, "annotations": { "b": "2" } },
            "env": [{ "name": "TWILL_LOG", "value": "debug" }],
            "flannel_cni": { "image": { "repository": "ghcr.io/flannel-io/flannel-cni-plugin", "tag": "v1" } },
            "healthz": { "port": 9090, "livenessProbe": { "periodSeconds": 7 }, "readinessProbe": { "periodSeconds": 8 } },
            "image": { "repository": "registry.example/twill", "tag": "7", "pullPolicy": "Always" },
            "nodeSelector": { "pool": "a" }, "podAnnotations": { "c": "3" }, "podLabels": { "p": "pod" },
            "resources": { "limits": { "memory": "100Mi" } },
            "selectorLabels": { "app": "flannel", "k8s-app": "flannel" },
            "tolerations": [{ "operator": "Exists", "effect": "NoSchedule" }],
            "updateStrategy": { "type": "OnDelete" },
        },
    });
    let Some(rendered) = rendered(&values) else { return };
    let rendered = rendered.unwrap();
    let set = object(&rendered, "DaemonSet", "kube-flannel-ds");
    assert_eq!(set["metadata"]["labels"]["l"], "set");
    assert_eq!(set["metadata"]["annotations"], json!({ "a": "1", "b": "2" }));
    assert_eq!(set["spec"]["selector"]["matchLabels"], json!({ "app": "flannel", "k8s-app": "flannel" }));
    assert_eq!(set["spec"]["updateStrategy"]["type"], "OnDelete");
    let template = &set["spec"]["template"];
    for (key, value) in [("p", "pod"), ("team", "net"), ("app", "flannel"), ("tier", "node"), ("k8s-app", "flannel")] {
        assert_eq!(template["metadata"]["labels"][key], value);
    }
    assert_eq!(template["metadata"]["annotations"], json!({ "a": "1", "c": "3" }));
    let pod = pod(&rendered);
    assert_eq!(pod["nodeSelector"], json!({ "pool": "a" }));
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "secret" }]));
    assert_eq!(pod["tolerations"], json!([{ "operator": "Exists", "effect": "NoSchedule" }]));
    for container in [&pod["initContainers"][0], &pod["containers"][0]] {
        assert_eq!(container["image"], "registry.example/twill:7");
        assert_eq!(container["imagePullPolicy"], "Always");
    }
    assert_eq!(
        daemon_args(&rendered),
        [
            "--ip-masq",
            "--kube-subnet-mgr",
            "--iface=eth1",
            "--healthz-port=9090",
            "--cni-conf=/etc/kube-flannel/cni-conf.json"
        ]
    );
    let daemon = &pod["containers"][0];
    assert_eq!(daemon["ports"][0]["containerPort"], 9090);
    assert_eq!(daemon["livenessProbe"]["periodSeconds"], 7);
    assert_eq!(daemon["readinessProbe"]["periodSeconds"], 8);
    assert_eq!(daemon["resources"]["limits"]["memory"], "100Mi");
    assert_eq!(daemon["env"][3], json!({ "name": "TWILL_LOG", "value": "debug" }));
    let path = |name: &str| {
        let volumes = pod["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == name).unwrap()["hostPath"]["path"].clone()
    };
    assert_eq!((path("cni-plugin"), path("cni")), (json!("/usr/libexec/cni"), json!("/etc/rancher/cni")));
}

#[test]
fn what_is_switched_off_is_gone() {
    let values = json!({ "flannel": { "skipCNIConfigInstallation": true, "healthz": { "port": 0 } } });
    let Some(rendered) = rendered(&values) else { return };
    let rendered = rendered.unwrap();
    assert_eq!(daemon_args(&rendered), ["--ip-masq", "--kube-subnet-mgr"]);
    let pod = pod(&rendered);
    let daemon = &pod["containers"][0];
    for key in ["ports", "livenessProbe", "readinessProbe"] {
        assert_eq!(daemon[key], Value::Null);
    }
    for list in [&daemon["volumeMounts"], &pod["volumes"]] {
        assert!(list.as_array().unwrap().iter().all(|item| item["name"] != "cni"), "{list}");
    }
    assert_eq!(pod["containers"].as_array().unwrap().len(), 1, "no side container");
}

#[test]
fn the_side_container_for_policies_is_flannels() {
    let values = json!({ "netpol": { "enabled": true, "image": { "tag": "v9" } } });
    let Some(rendered) = rendered(&values) else { return };
    let rendered = rendered.unwrap();
    let side = &pod(&rendered)["containers"][1];
    assert_eq!(side["image"], "registry.k8s.io/networking/kube-network-policies:v9");
    assert_eq!(side["args"], json!(["--hostname-override=$(MY_NODE_NAME)", "--v=2"]));
    let role = object(&rendered, "ClusterRole", "flannel")["rules"].to_string();
    assert!(role.contains("baselineadminnetworkpolicies") && role.contains("namespaces"), "{role}");
}

#[test]
fn values_that_cannot_be_meant_are_refused() {
    for (values, said) in [
        (
            json!({ "flannel": { "image": { "repository": "ghcr.io/flannel-io/flannel", "tag": "v0.28.9" } } }),
            "flannel.image.repository is ghcr.io/flannel-io/flannel, which is flannel and not Twill: leave flannel.image \
             out of your values, or name your copy of Twill's image",
        ),
        (
            json!({ "flannel": { "backend": { "VNI": 1 } } }),
            "flannel.backend is an object without Type: add it, as in {Type: vxlan}",
        ),
    ] {
        let Some(rendered) = rendered(&values) else { return };
        let error = rendered.unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}
