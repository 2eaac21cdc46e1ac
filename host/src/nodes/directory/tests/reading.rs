//! What the source sees of the folder.

use super::*;

#[tokio::test]
async fn what_is_there_at_the_start_in_both_formats() {
    let fixture = Fixture::new();
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    fixture.write("n2.yaml", &yaml("n2", "10.1.2.0/24"));
    fixture.write("n3.yml", &yaml("n3", "10.1.3.0/24"));
    for other in [".n4.json", "n4.json~", "n4.json.tmp", "README.md", "n4"] {
        fixture.write(other, &json("n4", "10.1.4.0/24"));
    }
    let fixture = fixture.start().await;
    fixture.until_nodes(&[("n1", "10.1.1.0/24"), ("n2", "10.1.2.0/24"), ("n3", "10.1.3.0/24")]).await;
    assert!(fixture.store.problems().is_empty());
    assert_eq!(fixture.store.take_changes().len(), 3);
}

#[tokio::test]
async fn a_missing_folder_is_an_error_at_the_start() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("nowhere");
    let error = Directory::new(&path, AnnotationKeys::default()).run(Arc::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot read the folder of Node manifests {}: No such file or directory (os error 2); create it, or name \
             another with --nodes-dir",
            path.display()
        )
    );
    let file = top.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Directory::new(&file, AnnotationKeys::default()).run(Arc::default()).await.unwrap_err();
    assert!(error.to_string().contains("not a directory"), "{error}");
}

#[tokio::test]
async fn nodes_come_change_and_go() {
    let fixture = Fixture::new().start().await;
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    fixture.rename_over("n2.yaml", &yaml("n2", "10.1.2.0/24"));
    fixture.until_nodes(&[("n1", "10.1.1.0/24"), ("n2", "10.1.2.0/24")]).await;
    fixture.write("n1.json", &json("n1", "10.1.9.0/24"));
    fixture.rename_over("n2.yaml", &yaml("n2", "10.1.8.0/24"));
    fixture.until_nodes(&[("n1", "10.1.9.0/24"), ("n2", "10.1.8.0/24")]).await;
    fs::remove_file(fixture.file("n1.json")).unwrap();
    fs::rename(fixture.file("n2.yaml"), fixture.file("n2.yaml~")).unwrap();
    fixture.until_nodes(&[]).await;
    fs::rename(fixture.file("n2.yaml~"), fixture.file("n2.yaml")).unwrap();
    fixture.until_nodes(&[("n2", "10.1.8.0/24")]).await;
}

#[tokio::test]
async fn links_count_as_files() {
    let fixture = Fixture::new().start().await;
    let outside = fixture.top.path().join("outside.json");
    fs::write(&outside, json("n1", "10.1.1.0/24")).unwrap();
    std::os::unix::fs::symlink(&outside, fixture.file("n1.json")).unwrap();
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    fs::remove_file(fixture.file("n1.json")).unwrap();
    fixture.until_nodes(&[]).await;
    fs::hard_link(&outside, fixture.file("n1.json")).unwrap();
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
}

#[tokio::test]
async fn files_behind_a_swapped_link_are_read_anew() {
    let fixture = Fixture::new();
    for (version, cidr) in [("..v1", "10.1.1.0/24"), ("..v2", "10.1.2.0/24")] {
        fs::create_dir(fixture.file(version)).unwrap();
        fixture.write(&format!("{version}/n1.json"), &json("n1", cidr));
    }
    std::os::unix::fs::symlink("..v1", fixture.file("..data")).unwrap();
    std::os::unix::fs::symlink("..data/n1.json", fixture.file("n1.json")).unwrap();
    let fixture = fixture.start().await;
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    std::os::unix::fs::symlink("..v2", fixture.file("..next")).unwrap();
    fs::rename(fixture.file("..next"), fixture.file("..data")).unwrap();
    fixture.until_nodes(&[("n1", "10.1.2.0/24")]).await;
}

#[tokio::test]
async fn a_broken_file_keeps_the_last_good_state() {
    let fixture = Fixture::new();
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    let fixture = fixture.start().await;
    fixture.write("n1.json", "{\"kind\":\"Node\",");
    fixture.until("a problem", |f| f.problem("n1").is_some()).await;
    assert_eq!(
        fixture.problem("n1").unwrap(),
        format!(
            "{}: it is not a proper manifest: EOF while parsing a value at line 1 column 15; the last good state of the \
             node stays",
            fixture.file("n1.json").display()
        )
    );
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    fixture.rename_over("n1.json", &json("n7", "10.1.2.0/24"));
    fixture.until("another problem", |f| f.problem("n1").is_some_and(|p| p.contains("\"n7\""))).await;
    assert_eq!(
        fixture.problem("n1").unwrap(),
        format!(
            "{}: its metadata.name is \"n7\", but the file is named after \"n1\": rename one of them; the last good state \
             of the node stays",
            fixture.file("n1.json").display()
        )
    );
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    fixture.rename_over("n1.json", &json("n1", "10.1.2.0/24"));
    fixture.until_nodes(&[("n1", "10.1.2.0/24")]).await;
    fixture.until("no problem", |f| f.problem("n1").is_none()).await;
}

#[tokio::test]
async fn odd_files_are_problems_and_not_more() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.file("n1.json")).unwrap();
    fixture.write("n2.json", &" ".repeat(3 << 20));
    fixture.write("n3.json", &json("n3", "10.1.3.0/24"));
    std::os::unix::fs::symlink("nowhere", fixture.file("n4.json")).unwrap();
    let fixture = fixture.start().await;
    fixture.until_nodes(&[("n3", "10.1.3.0/24")]).await;
    for (node, reason) in [("n1", "not a regular file"), ("n2", "larger than 2097152 bytes"), ("n4", "No such file")] {
        let problem = fixture.problem(node).unwrap();
        assert!(problem.contains(reason), "{problem}");
    }
}

#[tokio::test]
async fn two_files_for_one_node() {
    let fixture = Fixture::new().start().await;
    fixture.write("n1.yaml", &yaml("n1", "10.1.2.0/24"));
    fixture.until_nodes(&[("n1", "10.1.2.0/24")]).await;
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    assert_eq!(
        fixture.problem("n1").unwrap(),
        format!(
            "{} and {} are both for node n1: the first is used, remove one of them",
            fixture.file("n1.json").display(),
            fixture.file("n1.yaml").display()
        )
    );
    fs::remove_file(fixture.file("n1.json")).unwrap();
    fixture.until_nodes(&[("n1", "10.1.2.0/24")]).await;
    fixture.until("no problem", |f| f.store.problems().is_empty()).await;
}

#[tokio::test]
async fn a_folder_that_goes_takes_nobody_with_it() {
    let fixture = Fixture::new();
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    fixture.write("n2.json", &json("n2", "10.1.2.0/24"));
    let fixture = fixture.start().await;
    let away = fixture.top.path().join("away");
    fs::rename(fixture.folder(), &away).unwrap();
    fixture.until("a problem", |f| !f.store.problems().is_empty()).await;
    let place = fixture.folder().display().to_string();
    assert_eq!(
        fixture.store.problems()[&place],
        format!(
            "the folder of Node manifests {place} was removed, moved or unmounted; all nodes stay as they are until it is \
             back"
        )
    );
    // An empty folder in its place, as an unmounted mount point is, is not believed.
    fs::create_dir(fixture.folder()).unwrap();
    sleep(RETRY * 3).await;
    assert_eq!(fixture.nodes().len(), 2);
    assert!(!fixture.store.problems().is_empty());

    fs::remove_dir(fixture.folder()).unwrap();
    fs::remove_file(away.join("n2.json")).unwrap();
    fs::rename(&away, fixture.folder()).unwrap();
    fixture.until_nodes(&[("n1", "10.1.1.0/24")]).await;
    fixture.until("no problem", |f| f.store.problems().is_empty()).await;
    // And it is watched again.
    fixture.write("n3.json", &json("n3", "10.1.3.0/24"));
    fixture.until_nodes(&[("n1", "10.1.1.0/24"), ("n3", "10.1.3.0/24")]).await;
}

#[tokio::test]
async fn removing_the_folder_with_all_files_removes_no_node() {
    let fixture = Fixture::new();
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    let fixture = fixture.start().await;
    fs::remove_dir_all(fixture.folder()).unwrap();
    fixture.until("a problem", |f| !f.store.problems().is_empty()).await;
    assert_eq!(fixture.nodes().len(), 1);
}

#[tokio::test]
async fn another_folder_in_its_place_takes_nobody_either() {
    let fixture = Fixture::new();
    fixture.write("n1.json", &json("n1", "10.1.1.0/24"));
    let (directory, mut seen) = (fixture.directory(), Seen::default());
    let watched = directory.watch().unwrap();
    let mut look = |scope| directory.look(Look { scope, is_early: false }, watched.identity, &mut seen, &fixture.store);
    look(Scope::All).ok().unwrap();
    fs::rename(fixture.folder(), fixture.top.path().join("away")).unwrap();
    fs::create_dir(fixture.folder()).unwrap();
    for scope in [Scope::All, Scope::Changed, Scope::Only(["n1".to_owned()].into())] {
        let Err(Lost(reason)) = look(scope) else { panic!("the other folder was believed") };
        assert_eq!(reason, "was replaced by another");
    }
    assert_eq!(fixture.nodes().len(), 1);
}

#[tokio::test]
async fn an_early_look_believes_nothing_bad() {
    let fixture = Fixture::new();
    for node in ["n1", "n2", "n3"] {
        fixture.write(&format!("{node}.json"), &json(node, "10.1.1.0/24"));
    }
    let (directory, mut seen) = (fixture.directory(), Seen::default());
    let watched = directory.watch().unwrap();
    let mut look =
        |scope, is_early| directory.look(Look { scope, is_early }, watched.identity, &mut seen, &fixture.store);
    assert!(look(Scope::All, false).is_ok_and(|doubtful| doubtful.is_empty()));
    fs::remove_file(fixture.file("n1.json")).unwrap();
    fixture.write("n2.json", "");
    fixture.write("n3.json", &json("n3", "10.1.3.0/24"));
    let all = || Scope::Only(["n1", "n2", "n3"].map(str::to_owned).into());
    assert!(look(all(), true).is_ok_and(|doubtful| doubtful == ["n1", "n2"]));
    assert_eq!(fixture.nodes().len(), 3);
    assert!(fixture.store.problems().is_empty());
    assert_eq!(fixture.nodes()[2].1, "10.1.3.0/24");
    assert!(look(all(), false).is_ok_and(|doubtful| doubtful.is_empty()));
    assert_eq!(fixture.nodes().len(), 2);
    assert!(fixture.problem("n2").is_some());
}

#[tokio::test]
async fn what_is_replaced_in_parts_is_never_gone_and_never_broken() {
    let fixture = Fixture::new();
    fixture.write("n1.json", &json("n1", "0"));
    let fixture = fixture.start_here().await;
    let news = async {
        loop {
            fixture.store.changed().await;
            assert_eq!((fixture.nodes().len(), fixture.store.problems().len()), (1, 0));
        }
    };
    let replace = async {
        for round in 1..=20 {
            // As editors do it, and as a script with two redirections does.
            fs::rename(fixture.file("n1.json"), fixture.file("n1.json~")).unwrap();
            tokio::task::yield_now().await;
            let text = json("n1", &round.to_string());
            fixture.write("n1.json", &text[..text.len() / 2]);
            tokio::task::yield_now().await;
            fixture.write("n1.json", &text);
            fixture.until_nodes(&[("n1", &round.to_string())]).await;
        }
    };
    tokio::select! {
        () = news => {}
        () = replace => {}
    }
}

#[tokio::test]
async fn a_burst_larger_than_any_queue() {
    let fixture = Fixture::new();
    for n in 0..50 {
        fixture.write(&format!("n{n}.json"), &json(&format!("n{n}"), "0"));
    }
    let fixture = fixture.start_here().await;
    let queue: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap_or(16_384);
    // Nothing is read meanwhile: this thread is the only one. Two files take turns, so that no event merges with the one
    // before.
    for round in 0..queue.min(100_000) + 1_000 {
        fixture.write(&format!("n{}.json", round % 2), "{");
    }
    for n in 0..50 {
        fixture.write(&format!("n{n}.json"), &json(&format!("n{n}"), "1"));
    }
    fixture.until("all new", |f| f.nodes().iter().all(|(_, cidr)| cidr == "1") && f.nodes().len() == 50).await;
    fixture.until("no problem", |f| f.store.problems().is_empty()).await;
}

#[test]
fn a_look_at_what_changed_reads_nothing_else() {
    let top = tempfile::tempdir().unwrap();
    let (folder, keys) = (top.path(), AnnotationKeys::default());
    let write = |name: &str, cidr: &str| fs::write(folder.join(format!("{name}.json")), json(name, cidr)).unwrap();
    let look = |scope, seen: &mut Seen| {
        let nodes = folder::to_look_at(folder, scope, seen).unwrap();
        let mut buffer = Vec::new();
        let read = |(node, paths)| folder::read(node, paths, &keys, &mut buffer);
        let sights: Vec<Sight> = nodes.into_iter().map(read).collect();
        let names: Vec<_> = sights.iter().map(|sight| sight.node.clone()).collect();
        for Sight { node, files, .. } in sights {
            match files {
                Some(files) => seen.insert(&node, &files),
                None => seen.remove(&node),
            }
        }
        names
    };
    write("n1", "1");
    write("n2", "1");
    let mut seen = Seen::default();
    assert_eq!(look(Scope::All, &mut seen), ["n1", "n2"]);
    assert!(look(Scope::Changed, &mut seen).is_empty());
    write("n2", "22");
    fs::remove_file(folder.join("n1.json")).unwrap();
    write("n3", "1");
    assert_eq!(look(Scope::Changed, &mut seen), ["n1", "n2", "n3"]);
    assert!(look(Scope::Changed, &mut seen).is_empty());
    assert_eq!(look(Scope::Only(["n2".to_owned(), "gone".to_owned()].into()), &mut seen), ["gone", "n2"]);
    assert_eq!(look(Scope::All, &mut seen), ["n2", "n3"]);
}
