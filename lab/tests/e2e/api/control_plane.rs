//! The control plane of a lab itself, without a daemon: what the shipped rights allow, and that a server comes back.

use std::time::{Duration, SystemTime};

use serde_json::json;
use twill_lab::{Account, Credentials, KubePrograms, Kubectl, Lab};

use super::{api, programs};
use crate::common::bare_lab;

fn bare(variable: &str) -> Option<Lab> {
    let programs = programs(variable)?;
    bare_lab(|spec| (spec.api, spec.nodes) = (Some(programs), 1))
}

fn with_token(lab: &Lab, name: &str, token: String) -> Kubectl {
    api(lab).kubectl_as(name, &Credentials::Token(token)).unwrap()
}

/// The standard error of a command that must fail.
fn refusal(kubectl: &Kubectl, arguments: &[&str]) -> String {
    let output = kubectl.exec(arguments).unwrap();
    assert!(!output.ok, "kubectl {arguments:?} was allowed: {}", output.stdout);
    output.stderr
}

fn the_shipped_account_may_do_its_work_and_nothing_else(variable: &str) {
    let Some(lab) = bare(variable) else { return };
    let token = Account::SHIPPED.token(api(&lab)).unwrap();
    let daemon = with_token(&lab, "daemon", token.clone());
    assert_eq!(daemon.node("n1").unwrap()["spec"]["podCIDRs"], json!(["10.244.1.0/24", "fd00:10:244:1::/64"]));
    let patch = r#"{"metadata":{"annotations":{"a":"b"}}}"#;
    // As daemons do it; kubectl would read nodes/status first, which they need not.
    let url = format!("{}/api/v1/nodes/n1/status", api(&lab).url());
    let authority = api(&lab).certificate_authority().display().to_string();
    let request = ["curl", "-fsS", "--noproxy", "*", "--cacert", &authority, "--oauth2-bearer", &token];
    let content = ["-X", "PATCH", "-H", "Content-Type: application/strategic-merge-patch+json", "-d", patch, &url];
    lab.underlay.ns.run(&[&request[..], &content].concat()).unwrap();
    assert_eq!(daemon.node("n1").unwrap()["metadata"]["annotations"], json!({"a": "b"}));
    for arguments in [
        &["delete", "node", "n1"][..],
        &["patch", "node", "n1", "-p", patch],
        &["get", "configmaps", "--all-namespaces"],
        &["get", "secrets", "--all-namespaces"],
    ] {
        let said = refusal(&daemon, arguments);
        assert!(said.contains(&format!("User \"{}\" cannot", Account::SHIPPED.user())), "{said}");
    }
}

#[test]
fn the_shipped_account_may_do_its_work_and_nothing_else_on_a_complete_server() {
    the_shipped_account_may_do_its_work_and_nothing_else(KubePrograms::ANY);
}

#[test]
fn the_shipped_account_may_do_its_work_and_nothing_else_on_a_new_server() {
    the_shipped_account_may_do_its_work_and_nothing_else(KubePrograms::NEXT);
}

#[test]
fn tokens_end() {
    let Some(lab) = bare(KubePrograms::ANY) else { return };
    let (now, minute) = (SystemTime::now(), Duration::from_secs(60));
    let token = |end| Account::SHIPPED.token_until(api(&lab), end).unwrap();
    with_token(&lab, "good", token(now + minute)).node("n1").unwrap();
    let said = refusal(&with_token(&lab, "old", token(now - minute)), &["get", "nodes"]);
    assert!(said.contains("Unauthorized") || said.contains("must be logged in"), "{said}");
}

#[test]
fn a_node_has_one_podcidr_of_each_family_and_keeps_them() {
    let Some(lab) = bare(KubePrograms::ANY) else { return };
    let kubectl = api(&lab).kubectl();
    let three = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n2"},"spec":{"podCIDR":"10.244.2.0/24",
        "podCIDRs":["10.244.2.0/24","fd00:10:244:2::/64","10.244.3.0/24"]}}"#;
    let said = kubectl.run_with(&["create", "-f", "-"], three).unwrap_err().to_string();
    assert!(said.contains("spec.podCIDRs") && said.contains("no more than one CIDR for each IP family"), "{said}");
    let moved = r#"{"spec":{"podCIDR":"10.244.9.0/24","podCIDRs":["10.244.9.0/24"]}}"#;
    let said = refusal(kubectl, &["patch", "node", "n1", "-p", moved]);
    assert!(said.contains("node updates may not change podCIDR except from \"\" to valid"), "{said}");
}

#[test]
fn objects_outlive_the_server() {
    let Some(lab) = bare(KubePrograms::NEXT) else { return };
    let kubectl = api(&lab).kubectl();
    kubectl.run(&["annotate", "node", "n1", "kept=yes"]).unwrap();
    for crash in [true, false] {
        if crash { api(&lab).kill_server() } else { api(&lab).stop_server() }.unwrap();
        refusal(kubectl, &["get", "nodes", "--request-timeout=2s"]);
        api(&lab).start_server().unwrap();
        assert_eq!(kubectl.node("n1").unwrap()["metadata"]["annotations"]["kept"], "yes");
    }
}
