use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// How long a change may take to be seen before a test gives up. Less than the look at all files without inotify.
const PATIENCE: Duration = Duration::from_secs(8);
const _: () = assert!(PATIENCE.as_secs() < BLIND_PERIOD.as_secs());
/// How long nothing may be seen before it is believed that nothing is.
const QUIET: Duration = Duration::from_millis(500);

struct Fixture {
    top: TempDir,
    watch: FileWatch,
}

impl Fixture {
    fn new() -> Self {
        Self { top: tempfile::tempdir().unwrap(), watch: FileWatch::open() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// As a careful tool does it.
    fn rename_over(&self, name: &str, text: &str) {
        self.write("upload", text);
        fs::rename(self.path("upload"), self.path(name)).unwrap();
    }

    /// Follows a path, and waits for the one change that following it is.
    async fn follow(&mut self, name: &str) {
        let path = self.path(name);
        self.watch.set([path]);
        self.sees("the first look").await;
        self.sees_nothing("after the first look").await;
    }

    async fn sees(&mut self, what: &str) {
        timeout(PATIENCE, self.watch.changed()).await.unwrap_or_else(|_| panic!("never seen: {what}"));
    }

    async fn sees_nothing(&mut self, what: &str) {
        assert!(timeout(QUIET, self.watch.changed()).await.is_err(), "seen: {what}");
    }
}

#[tokio::test]
async fn a_file_written_replaced_and_removed() {
    let mut f = Fixture::new();
    f.write("conf", "1");
    f.follow("conf").await;
    f.write("conf", "2");
    f.sees("written").await;
    f.rename_over("conf", "3");
    f.sees("replaced").await;
    fs::remove_file(f.path("conf")).unwrap();
    f.sees("removed").await;
    f.write("conf", "4");
    f.sees("made again").await;
    fs::rename(f.path("conf"), f.path("other")).unwrap();
    f.sees("moved away").await;
    f.write("other", "5");
    f.write("upload", "6");
    f.sees_nothing("what happens beside it").await;
}

#[tokio::test]
async fn permissions_count() {
    let mut f = Fixture::new();
    f.write("conf", "1");
    f.follow("conf").await;
    fs::set_permissions(f.path("conf"), fs::Permissions::from_mode(0o600)).unwrap();
    f.sees("readable or not any more").await;
}

#[tokio::test]
async fn a_mounted_config_map() {
    let mut f = Fixture::new();
    let volume = |version: &str, f: &Fixture| {
        fs::create_dir_all(f.path("volume").join(version)).unwrap();
        fs::write(f.path("volume").join(version).join("net-conf.json"), version).unwrap();
        symlink(version, f.path("volume/..data_tmp")).unwrap();
        fs::rename(f.path("volume/..data_tmp"), f.path("volume/..data")).unwrap();
    };
    volume("..v1", &f);
    symlink("..data/net-conf.json", f.path("volume/net-conf.json")).unwrap();
    f.follow("volume/net-conf.json").await;
    for (old, new) in [("..v1", "..v2"), ("..v2", "..v3"), ("..v3", "..v4")] {
        volume(new, &f);
        fs::remove_dir_all(f.path("volume").join(old)).unwrap();
        f.sees(new).await;
        assert_eq!(fs::read_to_string(f.path("volume/net-conf.json")).unwrap(), new);
        f.sees_nothing("more than one change for a swap").await;
    }
}

#[tokio::test]
async fn a_folder_that_comes_later_and_goes_again() {
    let mut f = Fixture::new();
    f.follow("etc/twill/backends").await;
    fs::create_dir(f.path("etc")).unwrap();
    f.sees("the first folder").await;
    fs::create_dir_all(f.path("etc/twill/backends")).unwrap();
    f.sees("the folder itself").await;
    f.write("etc/twill/backends/vxlan.wasm", "1");
    f.sees("a file in it").await;
    fs::rename(f.path("etc"), f.path("gone")).unwrap();
    f.sees("a folder on the way moved away").await;
    f.write("gone/twill/backends/vxlan.wasm", "2");
    f.sees_nothing("what is not on the way any more").await;
    fs::rename(f.path("gone"), f.path("etc")).unwrap();
    f.sees("back again").await;
    f.write("etc/twill/backends/vxlan.wasm", "3");
    f.sees("followed again").await;
}

#[tokio::test]
async fn a_link_to_elsewhere() {
    let mut f = Fixture::new();
    fs::create_dir_all(f.path("a")).unwrap();
    fs::create_dir_all(f.path("b")).unwrap();
    f.write("a/x", "1");
    f.write("b/x", "1");
    symlink(f.path("a"), f.path("here")).unwrap();
    f.follow("here/x").await;
    f.write("b/x", "2");
    f.sees_nothing("where it does not lead").await;
    f.rename_over("a/x", "2");
    f.sees("where it leads").await;
    symlink("b", f.path("tmp")).unwrap();
    fs::rename(f.path("tmp"), f.path("here")).unwrap();
    f.sees("the link itself").await;
    f.write("b/x", "3");
    f.sees("where it leads now").await;
    f.write("a/x", "3");
    f.sees_nothing("where it led before").await;
    assert!(f.watch.watched.len() < 20, "old watches go: {:?}", f.watch.watched);
}

#[tokio::test]
async fn a_file_is_not_seen_before_it_is_complete() {
    use std::io::Write;
    let mut f = Fixture::new();
    f.follow("conf").await;
    let mut file = fs::File::create(f.path("conf")).unwrap();
    file.write_all(b"half").unwrap();
    f.sees_nothing("half of it").await;
    drop(file);
    f.sees("all of it").await;
    f.write("upload", "1");
    fs::remove_file(f.path("conf")).unwrap();
    f.sees("removed").await;
    fs::hard_link(f.path("upload"), f.path("conf")).unwrap();
    f.sees("another name of a complete file").await;
}

#[tokio::test]
async fn what_changes_all_the_time_is_seen_and_not_all_the_time() {
    let mut f = Fixture::new();
    f.write("conf", "1");
    f.follow("conf").await;
    let path = f.path("conf");
    let writer = tokio::spawn(async move {
        loop {
            fs::write(&path, "again").unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let start = Instant::now();
    for _ in 0..6 {
        f.sees("one of many").await;
    }
    writer.abort();
    assert!(start.elapsed() >= SHORTEST_PERIOD * 5, "{:?}", start.elapsed());
}

#[tokio::test]
async fn waiting_can_be_broken_off() {
    let mut f = Fixture::new();
    f.write("conf", "1");
    f.follow("conf").await;
    f.write("conf", "2");
    let broken_off = async {
        loop {
            if timeout(Duration::from_millis(5), f.watch.changed()).await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, broken_off).await.expect("each wait was shorter than the burst");
}

#[tokio::test]
async fn following_the_same_again_is_no_change() {
    let mut f = Fixture::new();
    f.write("conf", "1");
    f.follow("conf").await;
    let (conf, more) = (f.path("conf"), f.path("more"));
    f.watch.set([conf.clone()]);
    f.sees_nothing("the same").await;
    f.watch.set([conf.clone(), more]);
    f.sees("something new may have changed already").await;
    f.watch.set([conf]);
    f.sees_nothing("less than before").await;
    f.write("more", "1");
    f.sees_nothing("what is not followed any more").await;
}

#[tokio::test]
async fn without_inotify_everything_is_looked_at_now_and_then() {
    let mut watch = FileWatch::new(Err(io::Error::other("too many open files")));
    watch.set([PathBuf::from("/nowhere")]);
    timeout(PATIENCE, watch.changed()).await.expect("the first look");
    for _ in 0..2 {
        let wait = watch.due().unwrap() - Instant::now();
        assert!(wait <= BLIND_PERIOD && wait > BLIND_PERIOD / 2, "{wait:?}");
        // As if the time had passed.
        watch.blind = Some(Instant::now() - BLIND_PERIOD);
        timeout(PATIENCE, watch.changed()).await.expect("another look");
    }
}

#[tokio::test]
async fn a_lost_inotify_is_replaced_by_looking() {
    let mut f = Fixture::new();
    f.follow("conf").await;
    f.watch.lose(&io::Error::other("gone"));
    assert!(f.watch.due().is_some_and(|due| due > Instant::now() + BLIND_PERIOD / 2));
}
