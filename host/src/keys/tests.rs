use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;

/// RFC 7748, section 6.1: Bob.
const PRIVATE: &str = "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=";
const PUBLIC: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";

struct Place {
    dir: tempfile::TempDir,
    files: KeyFiles,
}

fn place(named: Option<&str>) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let mut files = KeyFiles::new(named.map(|name| dir.path().join(name)), &dir.path().join("lib/twill"));
    files.flannels = dir.path().join("flannel/wgkey");
    Place { dir, files }
}

impl Place {
    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn own(&self) -> String {
        fs::read_to_string(self.dir.path().join("lib/twill/wireguard.key")).unwrap()
    }

    fn provided(&self, in_kernel: Option<(u8, bool)>) -> KeyPair {
        let link = in_kernel.map(|(n, is_ours)| InKernel { key: key(n), is_ours });
        self.files.provide(link.as_ref()).unwrap()
    }
}

fn key(n: u8) -> SecretKey {
    clamped(&SecretKey::new([n; 32]))
}

fn pair(n: u8) -> KeyPair {
    KeyPair::of(&key(n))
}

#[test]
fn the_public_half_is_the_standards() {
    let pair = KeyPair::of(&PRIVATE.parse().unwrap());
    assert_eq!(pair.public().to_string(), PUBLIC);
    assert!(!format!("{pair:?}").contains(PRIVATE));
}

#[test]
fn a_key_is_made_once_and_only_its_owner_reads_it() {
    let place = place(None);
    let first = place.provided(None);
    assert_eq!(place.own(), format!("{}\n", first.private().reveal()));
    let file = fs::metadata(place.dir.path().join("lib/twill/wireguard.key")).unwrap();
    assert_eq!(file.mode() & 0o777, 0o400);
    assert_eq!(place.provided(None), first, "the same after a restart");
    assert_eq!(place.provided(Some((7, true))), first, "whatever somebody gave our link");
    assert_ne!(super::random().unwrap(), super::random().unwrap());
}

#[test]
fn flannels_key_is_taken_over_for_good() {
    let place = place(None);
    place.write("flannel/wgkey", &key(3).reveal());
    assert_eq!(place.provided(None), pair(3));
    fs::remove_file(place.dir.path().join("flannel/wgkey")).unwrap();
    assert_eq!(place.provided(None), pair(3), "after a reboot, which empties /run");
}

#[test]
fn what_a_link_of_flannels_has_peers_know() {
    let place = place(None);
    assert_eq!(place.provided(Some((4, false))), pair(4));
    assert_eq!(place.own(), format!("{}\n", key(4).reveal()));
    place.write("flannel/wgkey", &key(3).reveal());
    assert_eq!(place.provided(Some((5, false))), pair(5));
}

#[test]
fn what_our_link_has_counts_if_a_file_has_it() {
    let place = place(None);
    place.write("lib/twill/wireguard.key", &key(1).reveal());
    place.write("flannel/wgkey", &key(2).reveal());
    assert_eq!(place.provided(Some((1, true))), pair(1), "flannel's file came later and nobody used it");
    assert_eq!(place.provided(Some((9, true))), pair(2));
    fs::remove_file(place.dir.path().join("flannel/wgkey")).unwrap();
    fs::remove_file(place.dir.path().join("lib/twill/wireguard.key")).unwrap();
    assert_ne!(place.provided(Some((2, true))), pair(2), "with the files removed, a new one is wanted");
}

#[test]
fn the_operators_file_is_the_only_one() {
    let place = place(Some("mine/key"));
    place.write("flannel/wgkey", &key(3).reveal());
    let made = place.provided(None);
    assert_ne!(made, pair(3));
    assert_eq!(fs::read_to_string(place.dir.path().join("mine/key")).unwrap().trim(), made.private().reveal());
    assert!(!place.dir.path().join("lib").exists());
    place.write("mine/other", "x");
    fs::remove_file(place.dir.path().join("mine/key")).unwrap();
    place.write("mine/key", &format!("  {}\n\n", key(6).reveal()));
    assert_eq!(place.provided(Some((5, false))), pair(6));
}

#[test]
fn a_damaged_file_is_never_replaced() {
    let half = &key(1).reveal()[..20];
    for name in ["lib/twill/wireguard.key", "flannel/wgkey"] {
        for text in ["", half, "c2VjcmV0", "\u{0}\u{1}"] {
            let place = place(None);
            place.write(name, text);
            let error = place.files.provide(None).unwrap_err().to_string();
            let path = place.dir.path().join(name);
            let begin =
                format!("this node's WireGuard key in {} is damaged: it is not 32 bytes in base64.", path.display());
            assert!(error.starts_with(&begin), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
            assert_eq!(fs::read_to_string(path).unwrap(), text);
        }
    }
    let place = place(None);
    fs::create_dir_all(place.dir.path().join("lib/twill/wireguard.key")).unwrap();
    let error = place.files.provide(None).unwrap_err().to_string();
    assert!(error.starts_with("reading this node's WireGuard key: "), "{error}");
}
