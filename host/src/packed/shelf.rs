//! Records at rest, by name, all in one piece of memory.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::marker::PhantomData;

use hashbrown::HashTable;

use super::{Pack, take};

/// The least that is worth tidying up, in bytes.
const LITTER: usize = 4096;
/// What stands before an entry: its length.
const HEAD: usize = 4;

/// A map from names to packed values. Beside what it says, an entry takes some ten bytes, and no piece of memory of its own:
/// thousands of small ones, made between others that go again, leave holes.
pub struct Shelf<T> {
    /// Where entries begin.
    index: HashTable<u32>,
    /// Entries, and those that are no more: the length of the rest in four bytes, the name behind its own, the value.
    bytes: Vec<u8>,
    /// How many bytes are of entries that are no more.
    litter: usize,
    hasher: RandomState,
    of: PhantomData<fn() -> T>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { index: HashTable::new(), bytes: Vec::new(), litter: 0, hasher: RandomState::new(), of: PhantomData }
    }
}

impl<T> std::fmt::Debug for Shelf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl<T: Pack> Shelf<T> {
    /// Puts a value under a name, in place of the last one.
    pub fn insert(&mut self, name: &str, value: &T) {
        self.remove(name);
        if self.litter > LITTER.max(self.bytes.len() / 2) {
            self.tidy();
        }
        let at = self.bytes.len();
        self.bytes.extend([0; HEAD]);
        name.len().pack(&mut self.bytes);
        self.bytes.extend_from_slice(name.as_bytes());
        value.pack(&mut self.bytes);
        // Four gigabytes of nodes do not happen.
        let (Ok(place), Ok(length)) = (u32::try_from(at), u32::try_from(self.bytes.len() - at - HEAD)) else {
            return self.bytes.truncate(at);
        };
        self.bytes[at..at + HEAD].copy_from_slice(&length.to_le_bytes());
        let (bytes, hasher) = (&self.bytes, &self.hasher);
        self.index.insert_unique(hasher.hash_one(name.as_bytes()), place, |at| hasher.hash_one(name_at(bytes, *at)));
    }

    /// The value under a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<T> {
        self.first(name)
    }

    /// The first field of the value under a name, of this type.
    #[must_use]
    pub fn first<F: Pack>(&self, name: &str) -> Option<F> {
        F::unpack(&mut parts(&self.bytes, *self.find(name)?)?.1)
    }

    /// All names, each with the first field of its value.
    pub fn firsts<F: Pack>(&self) -> impl Iterator<Item = (&str, F)> {
        self.index.iter().filter_map(|at| {
            let (name, mut value) = parts(&self.bytes, *at)?;
            Some((std::str::from_utf8(name).ok()?, F::unpack(&mut value)?))
        })
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = T> {
        self.firsts().map(|(_, value)| value)
    }
}

impl<T> Shelf<T> {
    /// Whether there is something under a name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Takes away what is under a name; tells whether there was something.
    pub fn remove(&mut self, name: &str) -> bool {
        let bytes = &self.bytes;
        let entry =
            self.index.find_entry(self.hasher.hash_one(name.as_bytes()), |at| name_at(bytes, *at) == name.as_bytes());
        let Ok(entry) = entry else { return false };
        let (at, _) = entry.remove();
        self.litter += entry_at(&self.bytes, at).len();
        true
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.index.iter().filter_map(|at| std::str::from_utf8(name_at(&self.bytes, *at)).ok())
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    fn find(&self, name: &str) -> Option<&u32> {
        self.index.find(self.hasher.hash_one(name.as_bytes()), |at| name_at(&self.bytes, *at) == name.as_bytes())
    }

    /// Leaves out what is no more.
    fn tidy(&mut self) {
        let mut tidy = Vec::with_capacity(self.bytes.len() - self.litter);
        for at in &mut self.index {
            let entry = entry_at(&self.bytes, *at);
            // There is less of it than before.
            *at = u32::try_from(tidy.len()).unwrap_or(u32::MAX);
            tidy.extend_from_slice(entry);
        }
        (self.bytes, self.litter) = (tidy, 0);
    }
}

/// The entry that begins there.
fn entry_at(bytes: &[u8], at: u32) -> &[u8] {
    let entry = &bytes[at as usize..];
    let length = entry.first_chunk::<HEAD>().map_or(0, |head| u32::from_le_bytes(*head));
    &entry[..HEAD + length as usize]
}

/// The name and the value of the entry that begins there.
fn parts(bytes: &[u8], at: u32) -> Option<(&[u8], &[u8])> {
    let mut rest = &entry_at(bytes, at)[HEAD..];
    let length = usize::unpack(&mut rest)?;
    Some((take(&mut rest, length)?, rest))
}

fn name_at(bytes: &[u8], at: u32) -> &[u8] {
    parts(bytes, at).map_or(&[], |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(steps in proptest::collection::vec(("[a-z]{0,2}", proptest::option::of("\\PC{0,300}")), 0..200)) {
            let (mut shelf, mut map) = (Shelf::<(String, u64)>::default(), BTreeMap::new());
            for (number, (name, text)) in (0_u64..).zip(steps) {
                if let Some(text) = text {
                    shelf.insert(&name, &(text.clone(), number));
                    map.insert(name.clone(), (text, number));
                } else {
                    prop_assert_eq!(shelf.remove(&name), map.remove(&name).is_some());
                }
                prop_assert_eq!(shelf.get(&name), map.get(&name).cloned());
                prop_assert_eq!((shelf.contains(&name), shelf.len()), (map.contains_key(&name), map.len()));
            }
            let mut names: Vec<&str> = shelf.names().collect();
            names.sort_unstable();
            prop_assert!(names.iter().copied().eq(map.keys().map(String::as_str)));
            let firsts: BTreeMap<String, String> = shelf.firsts().map(|(name, text)| (name.to_owned(), text)).collect();
            let texts = map.into_iter().map(|(name, (text, _))| (name, text)).collect();
            prop_assert_eq!(firsts, texts);
        }
    }

    #[test]
    fn what_changes_takes_no_more_and_more() {
        let mut shelf = Shelf::default();
        for number in 0..100_000_u64 {
            shelf.insert(&(number % 100).to_string(), &number);
        }
        assert!(shelf.bytes.len() <= 2 * LITTER + 100, "{} bytes", shelf.bytes.len());
        assert_eq!(shelf.get("42"), Some(99_942));
    }
}
