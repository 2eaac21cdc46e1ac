//! The order in which the addresses of a set are tried.

use std::net::IpAddr;

use crate::range::{Range, RangeSet, address, number};

/// Every address of a set that may be given, each once, with the range that it is of: from the one after the address given
/// last to the end of its range, through the next ranges, and round to that address. It counts and stores nothing, so a
/// range may be as large as it likes.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    ranges: &'a [Range],
    first: Place,
    next: Option<Place>,
}

/// An address by the range that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    range: usize,
    number: u128,
}

impl<'a> Walk<'a> {
    /// The walk after `last`; through the whole set if that is of no range of it.
    pub(crate) fn after(last: Option<IpAddr>, set: &'a RangeSet) -> Walk<'a> {
        let ranges = set.ranges();
        let last = last.and_then(|last| {
            let range = ranges.iter().position(|range| range.contains(last))?;
            Some(Place { range, number: number(last) })
        });
        let first = match last {
            Some(place) => following(ranges, place),
            None => Place { range: 0, number: number(ranges[0].start()) },
        };
        Walk { ranges, first, next: Some(first) }
    }
}

fn following(ranges: &[Range], place: Place) -> Place {
    if place.number == number(ranges[place.range].end()) {
        let range = (place.range + 1) % ranges.len();
        return Place { range, number: number(ranges[range].start()) };
    }
    Place { number: place.number + 1, ..place }
}

impl<'a> Iterator for Walk<'a> {
    type Item = (IpAddr, &'a Range);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let place = self.next?;
            self.next = Some(following(self.ranges, place)).filter(|next| *next != self.first);
            let range = &self.ranges[place.range];
            let address = address(place.number, range.start());
            if address != range.gateway() {
                return Some((address, range));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(&str, &str, &str)]) -> RangeSet {
        let some = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        let ranges = ranges
            .iter()
            .map(|(subnet, start, end)| Range::new(subnet.parse().unwrap(), some(start), some(end), None).unwrap());
        RangeSet::new(ranges.collect()).unwrap()
    }

    fn walk(set: &RangeSet, last: &str) -> String {
        let last = last.parse().ok();
        let ends: Vec<String> = Walk::after(last, set).map(|(address, _)| address.to_string()).collect();
        ends.join(" ")
    }

    #[test]
    fn the_walk_begins_after_the_last_address_and_ends_with_it() {
        let small = set(&[("10.0.0.0/29", "", "")]);
        assert_eq!(walk(&small, ""), "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6");
        assert_eq!(walk(&small, "10.0.0.4"), "10.0.0.5 10.0.0.6 10.0.0.2 10.0.0.3 10.0.0.4");
        assert_eq!(walk(&small, "10.0.0.6"), "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6");
        assert_eq!(walk(&small, "10.0.0.1"), "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6");
        assert_eq!(walk(&small, "10.9.0.1"), "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6", "not of the set");
    }

    #[test]
    fn the_walk_goes_through_all_ranges_and_round() {
        let several = set(&[("10.0.0.0/30", "", ""), ("10.1.0.0/24", "10.1.0.7", "10.1.0.8"), ("10.2.0.0/30", "", "")]);
        assert_eq!(walk(&several, ""), "10.0.0.2 10.1.0.7 10.1.0.8 10.2.0.2");
        assert_eq!(walk(&several, "10.1.0.7"), "10.1.0.8 10.2.0.2 10.0.0.2 10.1.0.7");
    }

    #[test]
    fn a_range_of_one_address_and_one_of_nothing_but_the_gateway() {
        let one = set(&[("10.0.0.0/24", "10.0.0.9", "10.0.0.9")]);
        assert_eq!(walk(&one, ""), "10.0.0.9");
        assert_eq!(walk(&one, "10.0.0.9"), "10.0.0.9");
        assert_eq!(walk(&set(&[("10.0.0.0/24", "10.0.0.1", "10.0.0.1")]), ""), "");
    }

    #[test]
    fn the_last_address_of_all_is_walked_and_left() {
        let top =
            set(&[("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "")]);
        let (before, last) = ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(walk(&top, ""), format!("{before} {last}"));
        assert_eq!(walk(&top, before), format!("{last} {before}"));
    }

    #[test]
    fn a_range_that_nobody_can_count_is_walked_from_anywhere() {
        let huge = set(&[("fd00::/64", "", "")]);
        let mut walk = Walk::after("fd00::ffff:ffff:ffff:fffe".parse().ok(), &huge).map(|(ip, _)| ip.to_string());
        assert_eq!(walk.next().unwrap(), "fd00::ffff:ffff:ffff:ffff");
        assert_eq!(walk.next().unwrap(), "fd00::2");
    }
}
