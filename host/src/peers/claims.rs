//! Who has which subnet, and what of that shares addresses with another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use twill_model::Family;

/// Subnets by holder.
#[derive(Debug, Default)]
pub(super) struct Claims {
    holders: BTreeMap<IpNet, Arc<str>>,
    /// How many there are of each length. Mostly one length is all there is, and a wider subnet than that need not be looked for.
    lengths: BTreeMap<(Family, u8), usize>,
}

impl Claims {
    /// Gives a subnet to somebody.
    pub(super) fn insert(&mut self, subnet: IpNet, holder: Arc<str>) {
        if self.holders.insert(subnet, holder).is_none() {
            *self.lengths.entry(length(&subnet)).or_default() += 1;
        }
    }

    /// Nobody has it any more.
    pub(super) fn remove(&mut self, subnet: &IpNet) {
        if self.holders.remove(subnet).is_some()
            && let Some(count) = self.lengths.get_mut(&length(subnet))
        {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length(subnet));
            }
        }
    }

    /// What others than `name` have that shares addresses with this.
    pub(super) fn overlapping(&self, subnet: &IpNet, name: &str) -> Vec<(IpNet, &Arc<str>)> {
        let inside = self.holders.range(*subnet..).take_while(|(other, _)| subnet.contains(*other));
        let (family, own) = length(subnet);
        let wider = self.lengths.range((family, 0)..(family, own)).filter_map(|((_, length), _)| {
            let wider = IpNet::new(subnet.addr(), *length).ok()?.trunc();
            self.holders.get_key_value(&wider)
        });
        inside.chain(wider).map(|(other, holder)| (*other, holder)).filter(|(_, holder)| ***holder != *name).collect()
    }
}

fn length(subnet: &IpNet) -> (Family, u8) {
    (Family::of_net(subnet), subnet.prefix_len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_subnet() -> impl Strategy<Value = IpNet> {
        let v4 = (0u8..4, 22u8..=26).prop_map(|(n, length)| format!("10.1.{n}.64/{length}"));
        let v6 = (0u8..4, 62u8..=66).prop_map(|(n, length)| format!("fd00:0:0:{n}:4000::/{length}"));
        prop_oneof![v4, v6].prop_map(|text| text.parse::<IpNet>().unwrap().trunc())
    }

    proptest! {
        #[test]
        fn finds_what_a_look_at_all_finds(
            history in proptest::collection::vec((any::<bool>(), any_subnet(), 0u8..3), 0..20),
            subnet in any_subnet(),
        ) {
            let (mut claims, mut all) = (Claims::default(), BTreeMap::new());
            for (comes, subnet, holder) in history {
                if comes {
                    claims.insert(subnet, holder.to_string().into());
                    all.insert(subnet, holder.to_string());
                } else {
                    claims.remove(&subnet);
                    all.remove(&subnet);
                }
            }
            let shares = |other: &IpNet| super::super::overlap(other, &subnet);
            let expected: BTreeMap<IpNet, String> =
                all.into_iter().filter(|(other, holder)| holder != "0" && shares(other)).collect();
            let found = claims.overlapping(&subnet, "0");
            let found: Vec<(IpNet, String)> = found.into_iter().map(|(other, holder)| (other, holder.to_string())).collect();
            prop_assert_eq!(found.len(), expected.len());
            prop_assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), expected);
        }
    }
}
