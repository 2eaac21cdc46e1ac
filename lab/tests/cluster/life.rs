//! A cluster's life, step by step: nodes without a network, Twill, work, another node, restarts under load, a node that goes
//! and comes again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use twill_lab::{Cluster, MANIFEST, Probe, Stream};

use super::common::{cluster, done, image, measured};
use super::workload::{Web, behind_the_service, deploy, everybody_reaches_everybody, open_door, rolled_out, spread};

#[test]
fn a_cluster_lives() {
    let Some(image) = image() else { return };
    let Some(mut cluster) = cluster(&[image]) else { return };
    nodes_wait_for_a_network(&mut cluster);
    twill_makes_them_ready(&cluster);
    let pods = work_gets_done(&cluster);
    pods_are_attached_in_one_process(&cluster, &pods);
    ports_of_nodes_lead_to_pods(&cluster);
    daemons_restart_under_load(&cluster, &pods);
    a_third_node_joins(&mut cluster);
    pods_get_both_families(&cluster);
    a_node_goes_and_comes_again(&mut cluster);
    let seconds = cluster.journal.elapsed().as_secs();
    measured(&format!("the life of a cluster of three nodes, from the first program to the last check: {seconds} s"));
}

fn nodes_wait_for_a_network(cluster: &mut Cluster) {
    done(cluster.add_machine(1));
    done(cluster.add_machine(2));
    deploy(cluster, 1);
    for node in ["n1", "n2"] {
        let (status, message) = cluster.readiness(node).unwrap();
        assert_eq!(status, "False");
        assert!(message.contains("cni plugin not initialized"), "{message}");
        cluster.journal.say(&format!("{node} is not Ready: {message}"));
    }
    let web = cluster.kubectl().json(&["get", "deployment", "web"]).unwrap();
    assert!(web["status"]["availableReplicas"].is_null(), "{web:#}");
}

fn twill_makes_them_ready(cluster: &Cluster) {
    let begin = Instant::now();
    cluster.kubectl().apply(MANIFEST).unwrap();
    cluster.journal.say("kubectl apply -f deploy/kubernetes/kube-flannel.yaml");
    done(cluster.wait_ready(&["n1", "n2"]));
    cluster.journal.say("both nodes are Ready");
    measured(&format!(
        "from `kubectl apply` of Twill until both nodes are Ready: {:.1} s",
        begin.elapsed().as_secs_f64()
    ));
    for node in ["n1", "n2"] {
        let object = cluster.kubectl().node(node).unwrap();
        let annotations = &object["metadata"]["annotations"];
        assert_eq!(annotations["flannel.alpha.coreos.com/backend-type"], "vxlan", "{annotations:#}");
        assert_eq!(annotations["flannel.alpha.coreos.com/kube-subnet-manager"], "true", "{annotations:#}");
        let conditions = object["status"]["conditions"].as_array().unwrap();
        let network = conditions.iter().find(|condition| condition["type"] == "NetworkUnavailable").unwrap();
        assert_eq!((&network["status"], &network["reason"]), (&"False".into(), &"FlannelIsUp".into()), "{network:#}");
    }
}

fn work_gets_done(cluster: &Cluster) -> Vec<Web> {
    // Not before: whatever waits is given to the node that is Ready first.
    cluster.kubectl().run(&["scale", "deployment/web", "--replicas=4"]).unwrap();
    let pods = rolled_out(cluster);
    cluster.journal.say(&format!("a Deployment of {} has rolled out: {}", pods.len(), spread(&pods)));
    assert!(["n1", "n2"].iter().all(|node| pods.iter().any(|pod| pod.node == *node)), "{}", spread(&pods));
    let fetched = everybody_reaches_everybody(cluster, &pods);
    cluster.journal.say(&format!("pods reach each other: {fetched} pages fetched by kubectl exec"));
    let names: BTreeSet<String> = pods.iter().map(|pod| pod.name.clone()).collect();
    let mut answers = behind_the_service(cluster, &pods[0], 40);
    let begin = Instant::now();
    // A pod that is ready is behind the Service as soon as each kube-proxy has heard of it.
    while answers != names && answers.is_subset(&names) && begin.elapsed() < Cluster::PATIENCE {
        answers = behind_the_service(cluster, &pods[0], 40);
    }
    assert_eq!(answers, names, "each pod answers at the Service's address, and nobody else");
    cluster.journal.say(&format!("the Service's address leads to all {} of them", answers.len()));
    pods
}

/// Only the plugin's own work gives the host's end of a pod an alias.
fn pods_are_attached_in_one_process(cluster: &Cluster, pods: &[Web]) {
    for node in ["n1", "n2"] {
        let links = cluster.machine(node).unwrap().ns.ip_json(&["link", "show", "type", "veth"]).unwrap();
        let aliases = links.as_array().unwrap().iter().filter_map(|link| link["ifalias"].as_str());
        let attached = aliases.filter(|alias| alias.starts_with("cbr0 ") && alias.ends_with(" eth0")).count();
        let here = pods.iter().filter(|pod| pod.node == node).count();
        assert!(attached >= here, "{attached} of at least {here} pods of {node}: {links:#}");
    }
    cluster.journal.say("containerd attached them through the plugin, which started no other program");
}

fn ports_of_nodes_lead_to_pods(cluster: &Cluster) {
    open_door(cluster, "n1", 8080);
    let address = cluster.machine("n1").unwrap().underlay.addresses[0];
    let url = format!("http://{address}:8080/");
    for from in [&cluster.underlay.ns, &cluster.machine("n2").unwrap().ns] {
        let said = from.run(&["busybox", "wget", "-q", "-O-", &url]).unwrap();
        assert_eq!(said.trim(), "door", "from {}", from.name());
    }
    cluster.journal.say(&format!("{url} leads to the pod with this hostPort, from another node and from outside"));
}

fn daemons_restart_under_load(cluster: &Cluster, pods: &[Web]) {
    let on = |node: &str| pods.iter().find(|pod| pod.node == node).unwrap();
    let (from, to) = (on("n1"), on("n2"));
    let (from_ns, to_ns) = (cluster.pod_ns(&from.name).unwrap(), cluster.pod_ns(&to.name).unwrap());
    for (what, restart) in [
        ("a rolling restart", &["rollout", "restart", "daemonset/kube-flannel-ds"][..]),
        ("all daemons killed at once", &["delete", "pods", "-l", "app=flannel", "--grace-period=0", "--force"][..]),
    ] {
        let before = daemons(cluster);
        let probe = Probe::start(&from_ns, &to_ns, to.addresses[0], Duration::from_millis(1)).unwrap();
        let stream = Stream::start(&from_ns, &to_ns, to.addresses[0]).unwrap();
        let begin = Instant::now();
        cluster.kubectl().run(&[&["-n", "kube-flannel"], restart].concat()).unwrap();
        let status = ["-n", "kube-flannel", "rollout", "status", "daemonset/kube-flannel-ds", "--timeout=240s"];
        done(cluster.wait("other daemons", || {
            let now = daemons(cluster);
            let renewed = now.len() == before.len() && now.iter().all(|name| !before.contains(name));
            Ok(if renewed { Ok(()) } else { Err(format!("{now:?}")) })
        }));
        cluster.kubectl().run(&status).unwrap();
        thread::sleep(Duration::from_secs(1));
        let (probe, stream) = (probe.stop().unwrap(), stream.stop().unwrap());
        let took = begin.elapsed().as_secs_f64();
        let line = format!("{what} ({took:.1} s): 1 ms probe between pods of two nodes: {probe}; TCP: {stream}");
        cluster.journal.say(&line);
        measured(&line);
        assert_eq!(probe.lost, 0, "{line}");
        assert!(stream.is_whole(), "{line}");
    }
    for ns in [from_ns, to_ns] {
        ns.delete().unwrap();
    }
}

/// The names of the daemons' pods that run.
fn daemons(cluster: &Cluster) -> Vec<String> {
    let list = cluster.kubectl().json(&["-n", "kube-flannel", "get", "pods", "-l", "app=flannel"]).unwrap();
    let is_ready = |pod: &&Value| pod["status"]["containerStatuses"][0]["ready"] == true;
    let pods = list["items"].as_array().unwrap().iter().filter(is_ready);
    pods.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_string)).collect()
}

fn a_third_node_joins(cluster: &mut Cluster) {
    done(cluster.add_machine(3));
    done(cluster.wait_ready(&["n3"]));
    cluster.journal.say("n3 is Ready");
    cluster.kubectl().run(&["scale", "deployment/web", "--replicas=6"]).unwrap();
    let pods = rolled_out(cluster);
    assert!(pods.iter().any(|pod| pod.node == "n3"), "{}", spread(&pods));
    let fetched = everybody_reaches_everybody(cluster, &pods);
    cluster.journal.say(&format!("scaled to {}: {}; {fetched} pages fetched", pods.len(), spread(&pods)));
}

fn pods_get_both_families(cluster: &Cluster) {
    let [v4, v6] = Cluster::POD_NETWORKS;
    let net_conf = json!({
        "Network": v4, "EnableIPv6": true, "IPv6Network": v6, "Backend": { "Type": "vxlan" },
    });
    let patch = json!({ "data": { "net-conf.json": net_conf.to_string() } });
    let kubectl = |arguments: &[&str]| cluster.kubectl().run(&[&["-n", "kube-flannel"], arguments].concat()).unwrap();
    kubectl(&["patch", "configmap", "kube-flannel-cfg", "-p", &patch.to_string()]);
    kubectl(&["delete", "pods", "-l", "app=flannel"]);
    kubectl(&["rollout", "status", "daemonset/kube-flannel-ds", "--timeout=120s"]);
    cluster.kubectl().run(&["rollout", "restart", "deployment/web"]).unwrap();
    let pods = rolled_out(cluster);
    for pod in &pods {
        let families: Vec<bool> = pod.addresses.iter().map(IpAddr::is_ipv6).collect();
        assert_eq!(families, [false, true], "{pod:?}");
    }
    let fetched = everybody_reaches_everybody(cluster, &pods);
    cluster
        .journal
        .say(&format!("with IPv6Network in net-conf.json: {}; {fetched} pages fetched over both", spread(&pods)));
}

fn a_node_goes_and_comes_again(cluster: &mut Cluster) {
    let subnet = cluster.kubectl().node("n2").unwrap()["spec"]["podCIDR"].as_str().unwrap().to_string();
    let address = cluster.machine("n2").unwrap().underlay.addresses[0].to_string();
    let traces = |cluster: &Cluster, node: &str| {
        let ns = &cluster.machine(node).unwrap().ns;
        let routes = ns.run(&["ip", "route", "show", &subnet]).unwrap();
        let tunnel = ns.run(&["bridge", "fdb", "show", "dev", "flannel.1"]).unwrap();
        routes + &tunnel.lines().filter(|line| line.contains(&format!("dst {address} "))).collect::<String>()
    };
    for node in ["n1", "n3"] {
        assert!(!traces(cluster, node).is_empty(), "{node} knows n2");
    }
    // A kubelet of 1.20 may leave it to a collector that runs once a minute to remove a pod that has ended (Kubernetes'
    // pull request 92817): drain does not wait for it.
    let wait = ["--timeout=120s", "--skip-wait-for-delete-timeout=10"];
    let drain = [&["drain", "n2", "--ignore-daemonsets", "--force", "--delete-emptydir-data"][..], &wait].concat();
    if let Err(error) = cluster.kubectl().run(&drain) {
        let machine = cluster.machine("n2").unwrap();
        let logs = ["kubelet.log", "containerd.log"].map(|log| machine.log_end(log, 60)).join("\n");
        panic!("{error}\n{}\n{logs}", cluster.state());
    }
    let pods = rolled_out(cluster);
    assert!(pods.iter().all(|pod| pod.node != "n2"), "{}", spread(&pods));
    everybody_reaches_everybody(cluster, &pods);
    let reserved =
        || cluster.machine("n2")?.run(&["sh", "-c", "ls /var/lib/cni/networks/cbr0 | grep '[.:].*[.:]' || :"]);
    done(cluster.wait("addresses of pods that n2 had", || {
        let left = reserved()?;
        Ok(if left.is_empty() { Ok(()) } else { Err(left) })
    }));
    cluster.journal.say(&format!("n2 is drained, and its pods' addresses are free: {}", spread(&pods)));

    done(cluster.remove_machine("n2"));
    cluster.kubectl().run(&["delete", "node", "n2"]).unwrap();
    for node in ["n1", "n3"] {
        done(cluster.wait(&format!("{node} forgets n2"), || {
            let left = traces(cluster, node);
            Ok(if left.is_empty() { Ok(()) } else { Err(left) })
        }));
    }
    everybody_reaches_everybody(cluster, &pods);
    cluster.journal.say("n2 is switched off and deleted: the others have no route and no tunnel to it any more");

    done(cluster.add_machine(2));
    done(cluster.wait_ready(&["n2"]));
    cluster.journal.say("a new n2 is Ready");
    cluster.kubectl().run(&["rollout", "restart", "deployment/web"]).unwrap();
    let pods = rolled_out(cluster);
    assert!(pods.iter().any(|pod| pod.node == "n2"), "{}", spread(&pods));
    let fetched = everybody_reaches_everybody(cluster, &pods);
    cluster.journal.say(&format!("the Deployment is renewed: {}; {fetched} pages fetched", spread(&pods)));
}
