//! What runs in the cluster, and whether it works.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};
use twill_lab::{Cluster, Image};

/// A web server that says the name of its pod.
const SERVER: &str = "mkdir /www; hostname >/www/index.html; exec httpd -f -p 80 -h /www";

/// A running pod.
#[derive(Debug, Clone)]
pub(crate) struct Web {
    pub(crate) name: String,
    pub(crate) node: String,
    /// IPv4 first.
    pub(crate) addresses: Vec<IpAddr>,
}

/// A Deployment of web servers, spread over the nodes, and its Service.
pub(crate) fn deploy(cluster: &Cluster, replicas: usize) {
    let labels = json!({ "app": "web" });
    let spread = json!({
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": { "matchLabels": labels },
    });
    let mut template = pod_template(&labels, json!([]));
    template["spec"]["topologySpreadConstraints"] = json!([spread]);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": { "replicas": replicas, "selector": { "matchLabels": labels }, "template": template },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "selector": labels, "ports": [{ "port": 80 }] },
    });
    let both = json!({ "apiVersion": "v1", "kind": "List", "items": [deployment, service] });
    cluster.kubectl().apply(&both.to_string()).unwrap();
}

/// A web server on one node, reached by a port of that node.
pub(crate) fn open_door(cluster: &Cluster, node: &str, port: u16) {
    let mut pod = pod_template(&json!({}), json!([{ "containerPort": 80, "hostPort": port }]));
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("door");
    pod["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
    cluster.kubectl().apply(&pod.to_string()).unwrap();
    cluster.kubectl().run(&["wait", "pod/door", "--for=condition=Ready", "--timeout=60s"]).unwrap();
}

fn pod_template(labels: &Value, ports: Value) -> Value {
    json!({
        "metadata": { "labels": labels },
        "spec": {
            // A shell's child does not react to SIGTERM.
            "terminationGracePeriodSeconds": 1,
            // There is no DNS in the cluster.
            "dnsPolicy": "Default",
            // It asks the API server nothing, and goes sooner without a volume.
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "web",
                "image": Image::BUSYBOX,
                "command": ["/bin/sh", "-c", SERVER],
                "ports": ports,
                "readinessProbe": { "httpGet": { "path": "/", "port": 80 }, "periodSeconds": 1 },
            }],
        },
    })
}

/// Waits until the Deployment is complete and returns its pods, node by node.
pub(crate) fn rolled_out(cluster: &Cluster) -> Vec<Web> {
    cluster.kubectl().run(&["rollout", "status", "deployment/web", "--timeout=120s"]).unwrap_or_else(|error| {
        panic!("{error}\n{}", cluster.state());
    });
    let list = cluster.kubectl().json(&["get", "pods", "-l", "app=web"]).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let mut pods: Vec<Web> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .map(|pod| Web {
            name: text(&pod["metadata"]["name"]),
            node: text(&pod["spec"]["nodeName"]),
            addresses: pod["status"]["podIPs"]
                .as_array()
                .unwrap()
                .iter()
                .map(|ip| text(&ip["ip"]).parse().unwrap())
                .collect(),
        })
        .collect();
    pods.sort_by(|a, b| (&a.node, &a.name).cmp(&(&b.node, &b.name)));
    pods
}

/// How many pods are on each node.
pub(crate) fn spread(pods: &[Web]) -> String {
    let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in pods {
        *nodes.entry(&pod.node).or_default() += 1;
    }
    nodes.iter().map(|(node, count)| format!("{count} on {node}")).collect::<Vec<_>>().join(", ")
}

/// By `kubectl exec`, each pod fetches the page of each, at each of its addresses. Returns how many were fetched.
pub(crate) fn everybody_reaches_everybody(cluster: &Cluster, pods: &[Web]) -> usize {
    let targets: Vec<(&Web, IpAddr)> =
        pods.iter().flat_map(|to| to.addresses.iter().map(move |address| (to, *address))).collect();
    // One shell for all of them: each `kubectl exec` takes a moment.
    let fetch = |(to, address): &(&Web, IpAddr)| {
        let url = format!("http://{}/", SocketAddr::new(*address, 80));
        format!("wget -q -O- {url} || echo {} is silent at {address}; ", to.name)
    };
    let fetch: String = targets.iter().map(fetch).collect();
    let wanted: Vec<&str> = targets.iter().map(|(to, _)| to.name.as_str()).collect();
    for from in pods {
        let said = cluster.kubectl().run(&["exec", &from.name, "--", "sh", "-c", &fetch]).unwrap();
        assert_eq!(
            said.lines().collect::<Vec<_>>(),
            wanted,
            "from {} on {}\n{}",
            from.name,
            from.node,
            cluster.state()
        );
    }
    pods.len() * targets.len()
}

/// The pods that answer at the Service's address, asked from one of them.
pub(crate) fn behind_the_service(cluster: &Cluster, from: &Web, times: usize) -> BTreeSet<String> {
    let service = cluster.kubectl().json(&["get", "service", "web"]).unwrap();
    let address = service["spec"]["clusterIP"].as_str().unwrap();
    let fetch = format!("for i in $(seq {times}); do wget -q -O- http://{address}/ || echo silence; done");
    let said = cluster.kubectl().run(&["exec", &from.name, "--", "sh", "-c", &fetch]).unwrap();
    said.lines().map(str::to_string).collect()
}
