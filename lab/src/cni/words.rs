//! Stable words for what is random: names of host ends, hardware addresses, and the link-local addresses made of them.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use serde_json::Value;

/// What stands for what.
#[derive(Debug, Clone, Default)]
pub(super) struct Words(BTreeMap<String, String>);

impl Words {
    /// The links of one namespace as `ip -json link` shows them, called `place`. `peers` says what the peer of a link with
    /// a random name is called, by the index of the peer and the name of the namespace it is in.
    pub(super) fn learn(&mut self, place: &str, links: &[Value], peer_of: impl Fn(&Value) -> Option<String>) {
        for link in links {
            let name = link["ifname"].as_str().unwrap_or_default();
            let random = name.strip_prefix("veth").is_some_and(|rest| rest.len() == 8);
            let called = match random {
                true => peer_of(link).map_or_else(|| "veth of nobody".into(), |peer| format!("veth of {peer}")),
                false => name.to_string(),
            };
            if random {
                self.0.insert(name.into(), called.clone());
            }
            let owner = if place.is_empty() { called } else { format!("{place}/{called}") };
            self.learn_mac(&owner, link["address"].as_str().unwrap_or_default());
        }
    }

    fn learn_mac(&mut self, owner: &str, mac: &str) {
        let bytes: Vec<u8> = mac.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        let Ok([a, b, c, d, e, f]) = <[u8; 6]>::try_from(bytes) else { return };
        if [a, b, c, d, e, f] == [0; 6] {
            return;
        }
        self.0.entry(mac.into()).or_insert_with(|| format!("<MAC of {owner}>"));
        // A bridge's id is printed without leading zeros.
        let short = format!("{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x}");
        self.0.entry(short).or_insert_with(|| format!("<MAC of {owner}>"));
        let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        let local = Ipv6Addr::new(0xfe80, 0, 0, 0, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f));
        self.0.entry(local.to_string()).or_insert_with(|| format!("<link-local of {owner}>"));
        // The groups that a neighbour of this address is asked in.
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, pair(0xff, d), pair(e, f));
        self.0.entry(group.to_string()).or_insert_with(|| format!("<solicited-node of {owner}>"));
        let group = format!("33:33:ff:{d:02x}:{e:02x}:{f:02x}");
        self.0.entry(group).or_insert_with(|| format!("<solicited-node MAC of {owner}>"));
    }

    /// What else shall be called otherwise.
    pub(super) fn call(&mut self, found: &str, word: &str) {
        self.0.insert(found.into(), word.into());
    }

    /// A text in stable words.
    pub(super) fn say(&self, text: &str) -> String {
        // Longest first, since one may be the beginning of another.
        let mut known: Vec<(&String, &String)> = self.0.iter().collect();
        known.sort_by_key(|(found, _)| std::cmp::Reverse(found.len()));
        known.into_iter().fold(text.to_string(), |text, (found, word)| text.replace(found.as_str(), word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn random_names_and_addresses_have_words() {
        let links = [
            json!({ "ifname": "cni0", "address": "0a:58:0a:f4:03:01" }),
            json!({ "ifname": "veth0123abcd", "address": "9e:00:00:00:00:01", "link_index": 2 }),
            json!({ "ifname": "lo", "address": "00:00:00:00:00:00" }),
        ];
        let mut words = Words::default();
        words.learn("", &links, |link| (link["link_index"] == 2).then(|| "c1/eth0".to_string()));
        assert_eq!(
            words.say("veth0123abcd 9e:00:00:00:00:01 fe80::9c00:ff:fe00:1/64 8000.0a:58:0a:f4:03:01 00:00"),
            "veth of c1/eth0 <MAC of veth of c1/eth0> <link-local of veth of c1/eth0>/64 8000.<MAC of cni0> 00:00"
        );
    }
}
