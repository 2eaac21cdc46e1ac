//! Rules as iptables writes them, and the script that brings them in.

use std::fmt::Write;

use super::listing::Listing;
use super::{PLACES, Place};
use crate::rules::{FamilyRules, MARK, Mark, Rule, Side, Verdict};

/// The input for `iptables-restore --noflush` after which everything is as it should be; none if it is already.
///
/// A jump that is there stays where it is: whoever put it in front of other rules, or behind them, meant it.
pub(super) fn script(rules: &FamilyRules, listing: &Listing) -> Option<String> {
    let tables: String = PLACES
        .iter()
        .filter_map(|place| {
            let lines = table(place, rules.group(place.group), listing);
            (!lines.is_empty()).then(|| format!("*{}\n{lines}COMMIT\n", place.table))
        })
        .collect();
    (!tables.is_empty()).then_some(tables)
}

fn table(place: &Place, rules: &[Rule], listing: &Listing) -> String {
    let mut lines = String::new();
    let (chain, there) = (place.chain, listing.chain(place.group));
    let wanted: Vec<String> = rules.iter().map(|rule| append(place, rule)).collect();
    let jump = (!wanted.is_empty()).then(|| jump(place));
    // Declared again, a chain is emptied, and all of this counts from COMMIT on.
    if jump.is_some() && there != Some(wanted.as_slice()) {
        let _ = writeln!(lines, ":{chain} - [0:0]\n{}", wanted.join("\n"));
    }
    let mut has_jump = false;
    for line in listing.jumps(place.group) {
        if !has_jump && Some(line) == jump.as_deref() {
            has_jump = true;
        } else {
            let _ = writeln!(lines, "-D{}", line.strip_prefix("-A").unwrap_or(line));
        }
    }
    match jump {
        Some(jump) if !has_jump => lines.push_str(&(jump + "\n")),
        None if there.is_some() => {
            let _ = writeln!(lines, "-F {chain}\n-X {chain}");
        }
        _ => {}
    }
    lines
}

fn jump(place: &Place) -> String {
    format!("-A {} -m comment --comment \"{}\" -j {}", place.hook, place.comment, place.chain)
}

fn append(place: &Place, rule: &Rule) -> String {
    let mut text = format!("-A {}", place.chain);
    address(&mut text, "-s", rule.source);
    address(&mut text, "-d", rule.destination);
    match rule.mark {
        None => {}
        Some(Mark::Set) => drop(write!(text, " -m mark --mark {MARK:#x}/{MARK:#x}")),
        Some(Mark::Only) => drop(write!(text, " -m mark --mark {MARK:#x}")),
    }
    let _ = write!(text, " -m comment --comment \"{}\" -j ", place.comment);
    text.push_str(match rule.verdict {
        Verdict::Return => "RETURN",
        Verdict::Accept => "ACCEPT",
        Verdict::Masquerade { random_fully: false } => "MASQUERADE",
        Verdict::Masquerade { random_fully: true } => "MASQUERADE --random-fully",
    });
    text
}

fn address(text: &mut String, flag: &str, side: Option<Side>) {
    match side {
        // Everything, which iptables does not print.
        Some(Side { net, inside: true }) if net.prefix_len() == 0 => {}
        Some(Side { net, inside }) => drop(write!(text, "{} {flag} {net}", if inside { "" } else { " !" })),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::tests::{pods, settings};
    use crate::rules::{Plan, Settings};

    const FLANNELS: &str = "\
*nat
:FLANNEL-POSTRTG - [0:0]
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s OWN -d NET -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s NET -d OWN -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG ! -s NET -d OWN -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s NET ! -d MULTICAST -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s NET -d NET -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FLANNEL-FWD -s NET -m comment --comment \"flanneld forward\" -j ACCEPT
-A FLANNEL-FWD -d NET -m comment --comment \"flanneld forward\" -j ACCEPT
-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD
COMMIT
";

    fn flannels() -> [String; 2] {
        let multicast = ["224.0.0.0/4", "ff00::/8"];
        std::array::from_fn(|at| {
            let pod = &pods()[at];
            FLANNELS
                .replace("OWN", &pod.subnet.to_string())
                .replace("NET", &pod.network.to_string())
                .replace("MULTICAST", multicast[at])
        })
    }

    fn plan(change: impl FnOnce(&mut Settings)) -> Plan {
        let mut settings = settings();
        change(&mut settings);
        Plan::new(&settings, &pods())
    }

    #[test]
    fn rules_are_flannels_in_both_families() {
        let scripts = plan(|_| ()).families.map(|rules| script(&rules, &Listing::default()).unwrap());
        assert_eq!(scripts, flannels());
    }

    #[test]
    fn what_is_right_is_not_written() {
        let plan = plan(|_| ());
        for (rules, text) in plan.families.iter().zip(flannels()) {
            let listing = Listing::parse(&text.replace("-A POSTROUTING", "-A POSTROUTING -j OTHER\n-A POSTROUTING"));
            assert_eq!(listing.count(), rules.count());
            assert_eq!(script(rules, &listing), None);
        }
    }

    #[test]
    fn only_the_table_that_differs_is_written() {
        let plan = plan(|_| ());
        let rules = &plan.families[0];
        let [text, _] = flannels();
        let changed = |from: &str, to: &str| {
            assert!(text.contains(from));
            script(rules, &Listing::parse(&text.replacen(from, to, 1)))
        };
        let forward_jump = "-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n";
        assert_eq!(changed(forward_jump, "").unwrap(), format!("*filter\n{forward_jump}COMMIT\n"));
        assert_eq!(
            changed(forward_jump, &forward_jump.repeat(2)).unwrap(),
            format!("*filter\n{}COMMIT\n", forward_jump.replace("-A", "-D"))
        );
        let nat = text.split_inclusive("COMMIT\n").next().unwrap();
        let whole = nat.replace("-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG\n", "");
        // A rule lost, a rule too many, two rules in another order: the chain is written as a whole.
        let lines: Vec<&str> = nat.lines().collect();
        assert_eq!(changed(&format!("{}\n", lines[4]), "").unwrap(), whole);
        assert_eq!(changed(lines[4], &format!("{}\n{}", lines[4], lines[4])).unwrap(), whole);
        let turned = [lines[5], lines[4]].join("\n");
        assert_eq!(changed(&lines[4..6].join("\n"), &turned).unwrap(), whole);
    }

    #[test]
    fn a_jump_of_another_form_is_replaced() {
        let plan = plan(|s| s.masquerade = None);
        let [text, _] = flannels();
        let filter = text.split_inclusive("COMMIT\n").nth(1).unwrap();
        let listing = filter.replace("-A FORWARD -m comment --comment \"flanneld forward\"", "-A FORWARD -i eth0");
        assert_eq!(
            script(&plan.families[0], &Listing::parse(&listing)).unwrap(),
            "*filter\n-D FORWARD -i eth0 -j FLANNEL-FWD\n\
             -A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\nCOMMIT\n"
        );
    }

    #[test]
    fn what_is_not_wanted_goes() {
        let [text, _] = flannels();
        let gone = script(&Plan::nothing().families[0], &Listing::parse(&text)).unwrap();
        assert_eq!(
            gone,
            "*nat\n-D POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG\n-F FLANNEL-POSTRTG\n\
             -X FLANNEL-POSTRTG\nCOMMIT\n*filter\n-D FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD\n\
             -F FLANNEL-FWD\n-X FLANNEL-FWD\nCOMMIT\n"
        );
        assert_eq!(script(&Plan::nothing().families[0], &Listing::default()), None);
    }

    #[test]
    fn switches() {
        let plan = plan(|s| {
            let masquerade = s.masquerade.as_mut().unwrap();
            masquerade.random_fully = false;
            masquerade.except = vec!["0.0.0.0/0".parse().unwrap(), "192.0.2.7/32".parse().unwrap()];
        });
        let text = script(&plan.families[0], &Listing::default()).unwrap();
        assert!(!text.contains("random"), "{text}");
        assert!(text.contains("-A FLANNEL-POSTRTG -s 10.244.0.0/16 -m comment"), "{text}");
        assert!(text.contains("-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 192.0.2.7/32 -m comment"), "{text}");
    }
}
