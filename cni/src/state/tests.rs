use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NETNS: &str = "/run/netns/c";

fn attachment(container: &str, ifname: &str) -> Attachment {
    Attachment::new(container, ifname).unwrap()
}

fn config(network: &str) -> Object {
    json!({ "type": "bridge", "name": network, "mtu": 1450 }).as_object().unwrap().clone()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(&dir.path().join("cni/flannel"));
    (dir, store)
}

fn names(store: &Store) -> Vec<String> {
    let entries = fs::read_dir(&store.dir).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn flannels_part(store: &Store, attachment: &Attachment) -> Option<Vec<u8>> {
    store.bytes(attachment).map(|bytes| whereabouts::without(&bytes).to_vec())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_file_is_private_and_holds_what_the_delegate_got() {
    let (_dir, store) = store();
    let eth0 = attachment("c-1.x_y", "eth0");
    store.save(&eth0, &config("n"), NETNS, true).unwrap();
    assert_eq!(names(&store), ["c-1.x_y", "c-1.x_y:eth0"]);
    let file = store.dir.join("c-1.x_y:eth0");
    let text = fs::read_to_string(&file).unwrap();
    let (flannels, own) = text.split_once('\n').unwrap();
    assert_eq!(flannels, r#"{"mtu":1450,"name":"n","type":"bridge"}"#);
    assert!(own.contains(NETNS), "{own}");
    let double = store.dir.join("c-1.x_y");
    assert_eq!(fs::read_to_string(&double).unwrap(), flannels);
    assert_eq!((mode(&store.dir), mode(&file), mode(&double)), (0o700, 0o600, 0o600));
    assert_eq!(mode(store.dir.parent().unwrap()) & 0o500, 0o500);

    let saved = store.load(&eth0, "n");
    assert_eq!(saved, Saved::Config(Record { config: config("n"), file }));
    store.forget(&eth0, saved.file());
    assert_eq!(names(&store), [""; 0]);
    assert_eq!(store.load(&eth0, "n"), Saved::Nothing);
}

#[test]
fn what_a_crash_left_is_overwritten_and_forgotten() {
    let (_dir, store) = store();
    let eth0 = attachment("c", "eth0");
    fs::create_dir_all(&store.dir).unwrap();
    fs::write(store.dir.join(".c:eth0.tmp"), "{").unwrap();
    assert_eq!(store.load(&eth0, "n"), Saved::Nothing);
    store.save(&eth0, &config("n"), NETNS, true).unwrap();
    assert_eq!(names(&store), ["c", "c:eth0"]);
    fs::write(store.dir.join(".c:eth0.tmp"), "{").unwrap();
    store.forget(&eth0, Some(&store.file(&eth0)));
    assert_eq!(names(&store), [""; 0]);
}

#[test]
fn what_a_crash_between_the_two_files_left_is_completed_or_forgotten() {
    let (_dir, store) = store();
    let eth0 = attachment("c", "eth0");
    for lost in ["c", "c:eth0"] {
        let lose = || {
            store.save(&eth0, &config("n"), NETNS, true).unwrap();
            fs::remove_file(store.dir.join(lost)).unwrap();
        };
        lose();
        store.save(&eth0, &config("n"), NETNS, true).unwrap();
        assert_eq!(names(&store), ["c", "c:eth0"], "{lost}");
        lose();
        let saved = store.load(&eth0, "n");
        assert!(matches!(&saved, Saved::Config(record) if record.config == config("n")), "{lost}");
        store.forget(&eth0, saved.file());
        assert_eq!(names(&store), [""; 0], "{lost}");
    }
}

#[test]
fn the_double_follows_its_file_and_is_no_link_of_it() {
    let (_dir, store) = store();
    let eth0 = attachment("c", "eth0");
    let double = || fs::read(store.dir.join("c")).ok();
    for network in ["one", "two"] {
        store.save(&eth0, &config(network), NETNS, true).unwrap();
        assert_eq!(double(), flannels_part(&store, &eth0));
    }
    // As flannel's plugin writes for a second interface.
    fs::write(store.dir.join("c"), "flannel's").unwrap();
    assert_eq!(store.load(&eth0, "two"), Saved::Config(Record { config: config("two"), file: store.file(&eth0) }));
    store.save(&eth0, &config("three"), NETNS, true).unwrap();
    assert_eq!(double().unwrap(), b"flannel's");
    store.forget(&eth0, Some(&store.file(&eth0)));
    assert_eq!(names(&store), ["c"]);
}

#[test]
fn interfaces_of_one_network_share_the_double_until_the_last() {
    let (eth0, net1) = (attachment("c", "eth0"), attachment("c", "net1"));
    for (first, last) in [(&eth0, &net1), (&net1, &eth0)] {
        let (_dir, store) = store();
        for one in [&eth0, &net1] {
            store.save(one, &config("n"), NETNS, true).unwrap();
        }
        fs::write(store.dir.join("c"), flannels_part(&store, &eth0).unwrap()).unwrap();
        store.forget(first, Some(&store.file(first)));
        assert_eq!(store.load(first, "n"), Saved::Nothing, "what is there is the other's");
        assert_eq!(names(&store), ["c".to_owned(), key(last)]);
        store.forget(last, Some(&store.file(last)));
        assert_eq!(names(&store), [""; 0]);
    }
}

#[test]
fn a_second_interface_leaves_the_double_of_the_first() {
    let (_dir, store) = store();
    let (eth0, net1) = (attachment("c", "eth0"), attachment("c", "net1"));
    store.save(&eth0, &config("n"), NETNS, true).unwrap();
    store.save(&net1, &config("other"), NETNS, true).unwrap();
    assert_eq!(fs::read(store.dir.join("c")).ok(), flannels_part(&store, &eth0));
    store.forget(&net1, Some(&store.file(&net1)));
    assert_eq!(names(&store), ["c", "c:eth0"]);
    store.forget(&eth0, Some(&store.file(&eth0)));
    assert_eq!(names(&store), [""; 0]);
}

#[test]
fn what_flannels_plugin_left_before_is_no_double_even_if_it_says_the_same() {
    let (_dir, store) = store();
    let (eth0, net1) = (attachment("c", "eth0"), attachment("c", "net1"));
    fs::create_dir_all(&store.dir).unwrap();
    let flannels = store.dir.join("c");
    fs::write(&flannels, Value::Object(config("n")).to_string()).unwrap();
    File::options().write(true).open(&flannels).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    store.save(&net1, &config("n"), NETNS, true).unwrap();
    assert_eq!(store.load(&eth0, "n").file(), Some(flannels.as_path()));
    store.forget(&net1, Some(&store.file(&net1)));
    assert_eq!(names(&store), ["c"]);
}

#[test]
fn flannels_file_serves_only_its_own_network_and_after_ours() {
    let (_dir, store) = store();
    let (eth0, net1) = (attachment("c", "eth0"), attachment("c", "net1"));
    let flannels = store.dir.join("c");
    fs::create_dir_all(&store.dir).unwrap();
    fs::write(&flannels, Value::Object(config("n")).to_string()).unwrap();
    store.save(&net1, &config("other"), NETNS, true).unwrap();

    assert_eq!(store.load(&eth0, "n"), Saved::Config(Record { config: config("n"), file: flannels.clone() }));
    assert_eq!(store.load(&eth0, "other"), Saved::Nothing);
    let own = store.load(&net1, "other");
    store.forget(&net1, own.file());
    assert_eq!(names(&store), ["c"]);
    fs::write(&flannels, "").unwrap();
    assert_eq!(store.load(&eth0, "n"), Saved::Damaged(flannels));
}

#[test]
fn unusable_files_are_damaged() {
    let (_dir, store) = store();
    let eth0 = attachment("c", "eth0");
    store.save(&eth0, &config("n"), NETNS, true).unwrap();
    for text in ["", "{", "[]", "null", "{}", r#"{"type":1}"#, r#"{"type":""}"#, r#"{"name":"n"}"#] {
        fs::write(store.file(&eth0), text).unwrap();
        assert!(matches!(store.load(&eth0, "n"), Saved::Damaged(_)), "{text}");
    }
    fs::remove_file(store.file(&eth0)).unwrap();
    fs::create_dir(store.file(&eth0)).unwrap();
    assert!(matches!(store.load(&eth0, "n"), Saved::Damaged(_)));
}

#[test]
fn a_network_lists_only_its_own_files() {
    let (_dir, store) = store();
    assert!(store.of_network("n").unwrap().is_empty(), "no directory yet");
    store.save(&attachment("b", "eth0"), &config("n"), NETNS, true).unwrap();
    store.save(&attachment("a", "net1"), &config("n"), NETNS, true).unwrap();
    store.save(&attachment("a", "eth0"), &config("other"), NETNS, true).unwrap();
    for (name, text) in [("flannels", r#"{"type":"bridge","name":"n"}"#), ("z:eth0", "{"), (".a:x.tmp", "{}")] {
        fs::write(store.dir.join(name), text).unwrap();
    }
    let found = store.of_network("n").unwrap();
    let found: Vec<Attachment> = found.into_iter().map(|(attachment, _)| attachment).collect();
    assert_eq!(found, [attachment("a", "net1"), attachment("b", "eth0")]);
}

#[test]
fn too_long_a_name_is_an_error_to_save_and_nothing_to_load() {
    let (_dir, store) = store();
    let long = attachment(&"c".repeat(300), "eth0");
    assert_eq!(store.save(&long, &config("n"), NETNS, true).unwrap_err().code(), 5);
    assert_eq!(store.load(&long, "n"), Saved::Nothing);
    store.forget(&long, None);
}

proptest! {
    #[test]
    fn a_key_names_exactly_one_attachment(
        container in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,40}", ifname in "[^/:\\s\u{0}]{1,15}",
    ) {
        prop_assume!(ifname.len() <= 15 && ifname != "." && ifname != "..");
        let attachment = attachment(&container, &ifname);
        let key = key(&attachment);
        prop_assert!(!key.contains('/'));
        prop_assert!(Attachment::new(&key, "eth0").is_err(), "could be a file of flannel's");
        prop_assert!(parse_key(&temporary_name(&attachment)).is_none());
        prop_assert_eq!(parse_key(&key), Some(attachment));
    }

    #[test]
    fn only_keys_are_keys(name in "[a-c:./ -]{0,8}") {
        if let Some(attachment) = parse_key(&name) {
            prop_assert_eq!(key(&attachment), name);
        }
    }
}
