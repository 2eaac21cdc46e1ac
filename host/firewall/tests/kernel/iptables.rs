//! iptables in both variants.

use std::fs::File;

use rustix::fs::{FlockOperation, flock};
use twill_firewall::iptables::Variant;
use twill_firewall::{Firewall, Mode};

use crate::namespace::{FAMILIES, Words, isolated, plan, refusal, settings, sh, writes};

const NAT: &str = "\
-N FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s OWN -d NET -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s NET -d OWN -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG ! -s NET -d OWN -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s NET ! -d MULTICAST -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s NET -d NET -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
";
const FILTER: &str = "\
-N FLANNEL-FWD
-A FLANNEL-FWD -s NET -m comment --comment \"flanneld forward\" -j ACCEPT
-A FLANNEL-FWD -d NET -m comment --comment \"flanneld forward\" -j ACCEPT
";
const NAT_JUMP: &str = "-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG\n";
const FILTER_JUMP: &str = "-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n";

const VARIANTS: [(Variant, &str); 2] = [(Variant::Nft, "nft"), (Variant::Legacy, "legacy")];

/// The programs that a test of a variant needs.
fn programs(variant: &str) -> [String; 2] {
    ["iptables", "ip6tables"].map(|name| format!("{name}-{variant}-save"))
}

/// Runs a test once for each variant, in a namespace where kube-proxy uses that one.
fn for_each_variant<F: Future<Output = ()>>(name: &str, test: impl Fn(Variant, Tool) -> F + Copy + Send + 'static) {
    for (variant, word) in VARIANTS {
        let needs = programs(word);
        let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
        isolated(&format!("{name} ({word})"), &needs, move || async move {
            let tool = Tool { variant: word };
            for words in &FAMILIES {
                tool.run(words, "-t nat -N KUBE-POSTROUTING");
            }
            test(variant, tool).await;
        });
    }
}

#[derive(Clone, Copy)]
struct Tool {
    variant: &'static str,
}

impl Tool {
    fn run(&self, words: &Words, arguments: &str) -> String {
        sh(&words.fill(&format!("IPTABLES-{} {arguments}", self.variant)))
    }

    fn assert_flannels(&self, words: &Words) {
        for (table, chain, wanted, hook, jump) in [
            ("nat", "FLANNEL-POSTRTG", NAT, "POSTROUTING", NAT_JUMP),
            ("filter", "FLANNEL-FWD", FILTER, "FORWARD", FILTER_JUMP),
        ] {
            assert_eq!(self.run(words, &format!("-t {table} -S {chain}")), words.fill(wanted));
            assert_eq!(self.run(words, &format!("-t {table} -S {hook}")).matches(jump).count(), 1);
        }
    }
}

#[test]
fn rules_are_flannels_text_for_text() {
    for_each_variant("rules_are_flannels_text_for_text", async |variant, tool| {
        let mut firewall = Firewall::new(Mode::Iptables);
        assert_eq!(writes(&mut firewall, &plan(&settings())).await, [true, true]);
        assert_eq!(firewall.variant(), Some(variant));
        for words in &FAMILIES {
            tool.assert_flannels(words);
            assert_eq!(tool.run(words, "-t nat -S POSTROUTING"), format!("-P POSTROUTING ACCEPT\n{NAT_JUMP}"));
            assert_eq!(tool.run(words, "-t filter -S FORWARD"), format!("-P FORWARD ACCEPT\n{FILTER_JUMP}"));
        }
        assert_eq!(writes(&mut firewall, &plan(&settings())).await, [false, false]);
        assert_eq!(writes(&mut Firewall::new(Mode::Iptables), &plan(&settings())).await, [false, false], "a restart");
    });
}

#[test]
fn whatever_is_done_to_them_they_come_back_and_others_rules_stay() {
    for_each_variant("whatever_is_done_to_them", async |_, tool| {
        let mut firewall = Firewall::new(Mode::Iptables);
        let plan = plan(&settings());
        for words in &FAMILIES {
            tool.run(words, "-t nat -A POSTROUTING -o eth9 -j RETURN");
        }
        writes(&mut firewall, &plan).await;
        let others = |words: &Words| tool.run(words, "-t nat -S POSTROUTING").replace(NAT_JUMP, "");
        let before = FAMILIES.each_ref().map(others);
        for damage in [
            "-t nat -D FLANNEL-POSTRTG 3",
            "-t nat -F FLANNEL-POSTRTG",
            "-t nat -I FLANNEL-POSTRTG -j RETURN",
            "-t nat -A FLANNEL-POSTRTG -s NET -d OWN -m comment --comment 'flanneld masq' -j RETURN",
            "-t nat -D POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG",
            "-t nat -I POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG",
            "-t nat -I POSTROUTING -o eth8 -j FLANNEL-POSTRTG",
            "-t filter -F",
            "-t filter -D FORWARD 1",
        ] {
            for words in &FAMILIES {
                tool.run(words, damage);
            }
            assert_eq!(writes(&mut firewall, &plan).await, [true, true], "{damage}");
            FAMILIES.iter().for_each(|words| tool.assert_flannels(words));
            assert_eq!(writes(&mut firewall, &plan).await, [false, false], "{damage}");
        }
        assert_eq!(FAMILIES.each_ref().map(others), before);
    });
}

#[test]
fn a_jump_that_is_there_stays_where_it_is() {
    for_each_variant("a_jump_that_is_there_stays", async |_, tool| {
        let mut firewall = Firewall::new(Mode::Iptables);
        writes(&mut firewall, &plan(&settings())).await;
        let [words, _] = &FAMILIES;
        tool.run(words, "-t nat -A POSTROUTING -o eth9 -j RETURN");
        let before = tool.run(words, "-t nat -S POSTROUTING");
        tool.run(words, "-t nat -F FLANNEL-POSTRTG");
        writes(&mut firewall, &plan(&settings())).await;
        assert_eq!(tool.run(words, "-t nat -S POSTROUTING"), before);
    });
}

#[test]
fn what_is_not_configured_is_not_there() {
    for_each_variant("what_is_not_configured_is_not_there", async |_, tool| {
        let mut firewall = Firewall::new(Mode::Iptables);
        writes(&mut firewall, &plan(&settings())).await;
        let mut less = settings();
        less.masquerade = None;
        writes(&mut firewall, &plan(&less)).await;
        for words in &FAMILIES {
            assert!(!tool.run(words, "-t nat -S").contains("FLANNEL"));
            assert!(tool.run(words, "-S").contains(FILTER_JUMP));
        }
        less.forward = false;
        writes(&mut firewall, &plan(&less)).await;
        for words in &FAMILIES {
            assert!(!tool.run(words, "-S").contains("FLANNEL"));
            assert_eq!(tool.run(words, "-t nat -S KUBE-POSTROUTING"), "-N KUBE-POSTROUTING\n");
        }
    });
}

#[test]
fn a_lock_that_another_program_holds_is_named() {
    let needs = programs("legacy");
    isolated("a_lock_that_another_program_holds_is_named", &[&needs[0], &needs[1]], || async {
        sh("iptables-legacy -t nat -N KUBE-POSTROUTING");
        let lock = File::create("/run/xtables.lock").unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert_eq!(
            refusal(Mode::Iptables).await.to_string(),
            "another program held the xtables lock /run/xtables.lock for 5 seconds, so the IPv4 firewall rules were not \
             written: find it with `fuser -v /run/xtables.lock`"
        );
        assert!(!sh("iptables-legacy-save").contains("FLANNEL"));
        drop(lock);
        assert_eq!(writes(&mut Firewall::new(Mode::Iptables), &plan(&settings())).await, [true, true]);
    });
}
