//! Whom the daemon asks and as whom: what each mistake is called, and that it can be mended under a running daemon.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use serde_json::json;
use twill_lab::{Account, Credentials, KubePrograms, Lab, Node, Status};

use super::{SOON, annotate, annotation, api, kubectl, prepared, running};
use crate::common::eventually;

/// Waits until the daemon says in these words what it waits for, without being ready.
fn waits_because(node: &Node, words: &str) -> Status {
    let says = |status: &Status| !status.ready && status.reason.as_ref().is_some_and(|reason| reason.contains(words));
    node.wait_for(words, SOON, says).unwrap()
}

fn flag(name: &str, path: &Path) -> [String; 2] {
    [name.to_string(), path.display().to_string()]
}

fn start_with(node: &Node, flags: &[String]) {
    node.start_with(&flags.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
}

/// The ClusterRole as it ships, or without the rule for one resource.
fn grant(lab: &Lab, without: Option<&str>) {
    let mut role = kubectl(lab).json(&["get", "clusterrole", "flannel"]).unwrap();
    if let (Some(resource), Some(rules)) = (without, role["rules"].as_array_mut()) {
        let before = rules.len();
        rules.retain(|rule| rule["resources"] != json!([resource]));
        assert_eq!(rules.len(), before - 1, "a rule of its own for {resource}");
    }
    let patch = json!({ "rules": role["rules"] }).to_string();
    kubectl(lab).run(&["patch", "clusterrole", "flannel", "--type=merge", "-p", &patch]).unwrap();
}

#[test]
fn without_the_right_to_patch() {
    let Some(lab) = prepared(KubePrograms::ANY, |_| ()) else { return };
    let shipped = kubectl(&lab).json(&["get", "clusterrole", "flannel"]).unwrap()["rules"].clone();
    grant(&lab, Some("nodes/status"));
    let node = lab.node(0);
    node.start().unwrap();
    waits_because(
        node,
        "announcing this node to the others: writing into Node n1: the API server of this cluster forbids it (403 nodes \"n1\" is \
         forbidden: User \"system:serviceaccount:kube-flannel:flannel\" cannot patch resource \"nodes/status\" in API group \"\" \
         at the cluster scope): apply the ClusterRole and its binding from deploy/",
    );
    let patch = json!({ "rules": shipped }).to_string();
    kubectl(&lab).run(&["patch", "clusterrole", "flannel", "--type=merge", "-p", &patch]).unwrap();
    node.wait_ready(SOON).unwrap();
}

#[test]
fn without_the_right_to_watch() {
    let Some(lab) = prepared(KubePrograms::ANY, |_| ()) else { return };
    let Account { namespace, name } = Account::POWERLESS;
    kubectl(&lab).run(&["create", "serviceaccount", name, "--namespace", namespace]).unwrap();
    let token = Account::POWERLESS.token(api(&lab)).unwrap();
    Account::POWERLESS.mount(api(&lab), &token).unwrap();
    let node = lab.node(0);
    node.start().unwrap();
    waits_because(node, "User \"system:serviceaccount:kube-flannel:powerless\" cannot");
    waits_because(node, "): apply the ClusterRole and its binding from deploy/");
    assert!(!node.path("subnet.env").exists());
}

#[test]
fn a_token_that_is_no_longer_valid_and_one_that_is() {
    let Some(lab) = prepared(KubePrograms::ANY, |_| ()) else { return };
    let account = Account::SHIPPED;
    let past = SystemTime::now() - Duration::from_secs(60);
    account.mount(api(&lab), &account.token_until(api(&lab), past).unwrap()).unwrap();
    let node = lab.node(0);
    node.start().unwrap();
    waits_because(
        node,
        "the API server of this cluster does not accept this daemon's credentials (401 Unauthorized): the token or certificate is \
         wrong or expired",
    );
    account.mount(api(&lab), &account.token(api(&lab)).unwrap()).unwrap();
    node.wait_ready(SOON).unwrap();
}

#[test]
fn a_token_is_replaced_before_it_ends() {
    let Some(lab) = prepared(KubePrograms::ANY, |_| ()) else { return };
    let account = Account::SHIPPED;
    // Servers believe a token for ten seconds after its end.
    let end = SystemTime::now() + Duration::from_secs(12);
    account.mount(api(&lab), &account.token_until(api(&lab), end).unwrap()).unwrap();
    lab.start().unwrap();
    account.mount(api(&lab), &account.token(api(&lab)).unwrap()).unwrap();
    sleep(Duration::from_secs(25));
    let mine = lab.node(0).underlay.addresses[0].to_string();
    annotate(&lab, "n1", "public-ip", Some("203.0.113.9"));
    eventually("it is set again", SOON, || annotation(&lab, "n1", "public-ip") == json!(mine));
    // A new watch needs the new token too.
    api(&lab).kill_server().unwrap();
    api(&lab).start_server().unwrap();
    for node in lab.nodes() {
        node.wait_for("it watches again", SOON, |status| status.source.connected && status.ready).unwrap();
    }
}

#[test]
fn a_kubeconfig_with_a_certificate_a_token_and_a_token_file() {
    let Some(lab) = prepared(KubePrograms::ANY, |spec| spec.nodes = 3) else { return };
    let token = Account::SHIPPED.token(api(&lab)).unwrap();
    let file = lab.node(2).path("token");
    fs::write(&file, &token).unwrap();
    let user = api(&lab).user(&Account::SHIPPED.user(), &["system:serviceaccounts"]).unwrap();
    let credentials = [user, Credentials::Token(token), Credentials::TokenFile(file)];
    for (node, credentials) in lab.nodes().iter().zip(&credentials) {
        let config = api(&lab).write_kubeconfig(&node.name, credentials).unwrap();
        start_with(node, &flag("--kubeconfig-file", &config));
    }
    lab.wait_settled().unwrap();
}

#[test]
fn a_pod_that_asks_which_node_it_is_on() {
    let Some(lab) = prepared(KubePrograms::ANY, |_| ()) else { return };
    let node = lab.node(0);
    let mut daemon = node.daemon_command();
    daemon.env_remove("NODE_NAME").env("POD_NAME", "kube-flannel-ds-x").env("POD_NAMESPACE", "kube-flannel");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "kube-flannel-ds-x", "namespace": "kube-flannel" },
        "spec": { "nodeName": "n1", "containers": [{ "name": "kube-flannel", "image": "twill" }] },
    });
    kubectl(&lab).apply(&pod.to_string()).unwrap();
    // What ships gives NODE_NAME and so needs no right to read pods.
    let ended = node.ns.exec_with(&mut daemon, "").unwrap();
    let words = "reading pod kube-flannel/kube-flannel-ds-x for the name of this node: the API server of this cluster forbids it (403 ";
    assert!(ended.code == Some(1) && ended.stderr.contains(words), "{ended:?}");
    let role = json!({ "rules": [
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["get"] },
        { "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"] },
    ]});
    kubectl(&lab).run(&["patch", "clusterrole", "flannel", "--type=merge", "-p", &role.to_string()]).unwrap();
    let mut running = node.ns.spawn(&mut daemon).unwrap();
    node.wait_for("it knows its name", SOON, |status| status.node == "n1" && status.ready).unwrap();
    running.kill().unwrap();
}

#[test]
fn an_address_of_its_own_with_the_pods_token() {
    let Some(lab) = prepared(KubePrograms::NEXT, |spec| spec.nodes = 1) else { return };
    lab.node(0).start_with(&["--kube-api-url", &api(&lab).url()]).unwrap();
    lab.node(0).wait_ready(SOON).unwrap();
}

#[test]
fn a_wrong_address() {
    let Some(lab) = prepared(KubePrograms::NEXT, |_| ()) else { return };
    let url = "https://192.0.2.254:1";
    lab.node(0).start_with(&["--kube-api-url", url]).unwrap();
    waits_because(
        lab.node(0),
        "the API server https://192.0.2.254:1 (--kube-api-url) cannot be reached: Connection refused (os error 111); this node's \
         network stays as it is",
    );
    let ended = lab.node(1).run_daemon(&["--kube-api-url", "ftp://192.0.2.254"], SOON).unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let words = "--kube-api-url \"ftp://192.0.2.254\" is not an address of an API server: it begins neither with http:// nor with \
                 https://; expected one as \"https://192.0.2.1:6443\"";
    assert!(ended.stderr.contains(words), "{}", ended.stderr);
}

#[test]
fn a_server_with_another_certificate() {
    let Some(lab) = prepared(KubePrograms::NEXT, |_| ()) else { return };
    let foreign = lab.node(0).path("foreign");
    fs::create_dir_all(&foreign).unwrap();
    let directory = foreign.display().to_string();
    let make = format!(
        "cd {directory} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt \
         -subj /CN=somebody-else -days 1"
    );
    lab.underlay.ns.run(&["sh", "-c", &make]).unwrap();
    let config = api(&lab).write_kubeconfig("foreign", &Credentials::Token("x".into())).unwrap();
    let ours = api(&lab).certificate_authority().display().to_string();
    let text = fs::read_to_string(&config).unwrap().replace(&ours, &format!("{directory}/ca.crt"));
    fs::write(&config, text).unwrap();
    start_with(lab.node(0), &flag("--kubeconfig-file", &config));
    let status = waits_because(lab.node(0), "cannot be reached: ");
    assert!(status.reason.unwrap().contains("certificate"), "{:?}", status.source.error);
}

/// As it looks to a machine whose clock is a day ahead: a certificate of the right authority whose time is over.
#[test]
fn a_certificate_out_of_its_time() {
    let Some(lab) = prepared(KubePrograms::ANY, |spec| spec.nodes = 1) else { return };
    let dir = lab.node(0).path("late");
    fs::create_dir_all(&dir).unwrap();
    let directory = dir.display().to_string();
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    let make = format!(
        "cd {directory} && openssl req -x509 {new} -keyout ca.key -out ca.crt -subj /CN=late -days 1 && \
         openssl req -new {new} -keyout server.key -out server.csr -subj /CN=server -addext subjectAltName=IP:192.0.2.254 && \
         openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -copy_extensions copy -days -1 -out server.crt"
    );
    lab.underlay.ns.run(&["sh", "-c", &make]).unwrap();
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-accept", "192.0.2.254:7443", "-cert", "server.crt", "-key", "server.key"]);
    let _server = lab.underlay.ns.spawn(server.current_dir(&dir)).unwrap();
    let config = api(&lab).write_kubeconfig("late", &Credentials::Token("x".into())).unwrap();
    let ours = api(&lab).certificate_authority().display().to_string();
    let text = fs::read_to_string(&config).unwrap().replace(&ours, &format!("{directory}/ca.crt"));
    fs::write(&config, text.replace(&api(&lab).url(), "https://192.0.2.254:7443")).unwrap();
    start_with(lab.node(0), &flag("--kubeconfig-file", &config));
    let status = waits_because(lab.node(0), "cannot be reached: invalid peer certificate: ");
    let words = "check it, or renew the certificate); this node's network stays as it is";
    assert!(status.reason.as_ref().is_some_and(|reason| reason.contains(words)), "{:?}", status.reason);
}

#[test]
fn no_way_to_the_server_at_all() {
    let Some(lab) = prepared(KubePrograms::NEXT, |_| ()) else { return };
    let node = lab.node(0);
    let missing = node.path("nowhere").display().to_string();
    let ended = node.run_daemon(&["--kubeconfig-file", &missing], SOON).unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let words = format!("reading the kubeconfig {missing}: ");
    assert!(ended.stderr.contains(&words) && ended.stderr.contains("; correct --kubeconfig-file"), "{}", ended.stderr);
    fs::remove_file("/var/run/secrets/kubernetes.io/serviceaccount/token").unwrap();
    let ended = node.run_daemon(&[], SOON).unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for words in [
        "preparing the connection to the API server https://192.0.2.254:6443/: ",
        "serviceaccount/token",
        "No such file",
    ] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    let mut daemon = node.daemon_command();
    daemon.env_remove("KUBERNETES_SERVICE_HOST").env_remove("KUBERNETES_SERVICE_PORT");
    let ended = node.ns.exec_with(&mut daemon, "").unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for words in ["no way to the API server: ", "outside of a pod, give --kubeconfig-file"] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[test]
fn what_is_mended_goes_on_by_itself() {
    let Some(lab) = running(KubePrograms::ANY, |_| ()) else { return };
    // The binding is deleted under running daemons, and applied again.
    let binding = kubectl(&lab).run(&["get", "clusterrolebinding", "flannel", "-o", "yaml"]).unwrap();
    kubectl(&lab).run(&["delete", "clusterrolebinding", "flannel"]).unwrap();
    api(&lab).kill_server().unwrap();
    api(&lab).start_server().unwrap();
    let node = lab.node(0);
    let status = node.wait_for("it is told", SOON, |status| {
        status.source.error.as_ref().is_some_and(|error| error.contains("apply the ClusterRole and its binding"))
    });
    assert!(status.unwrap().ready, "the network works");
    kubectl(&lab).apply(&binding).unwrap();
    node.wait_for("it watches again", SOON, |status| status.source.connected).unwrap();
}
