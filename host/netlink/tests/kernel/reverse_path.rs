//! Reverse-path filters, and the packets that they drop.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use twill_netlink::Links;

use crate::namespace::{isolated, sh};

/// Another network namespace; it goes with its process.
struct Neighbour(Child);

impl Neighbour {
    fn new() -> Self {
        let this = Self(
            Command::new("unshare").args(["--net", "sleep", "60"]).stdout(Stdio::null()).spawn().expect("unshare runs"),
        );
        let net = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).unwrap();
        while net(&this.0.id().to_string()) == net("thread-self") {
            thread::sleep(Duration::from_millis(2));
        }
        this
    }

    fn commands(&self, commands: &str) -> String {
        format!("nsenter --target {} --net sh -ec '{commands}'", self.0.id())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn value(interface: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter")).unwrap().trim().to_owned()
}

#[test]
fn packets_that_come_another_way_pass_only_loose_filters() {
    isolated("packets_that_come_another_way_pass_only_loose_filters", || async {
        let neighbour = Neighbour::new();
        let pid = neighbour.0.id();
        for n in 1..=2 {
            sh(&format!(
                "ip link add here{n} type veth peer name there{n} netns {pid}
                 ip addr add 192.0.{n}.1/24 dev here{n}; ip link set here{n} up"
            ));
            sh(&neighbour.commands(&format!(
                "ip addr add 192.0.{n}.2/24 dev there{n}; ip link set there{n} up
                 echo 0 > /proc/sys/net/ipv4/conf/there{n}/rp_filter"
            )));
        }
        sh(&neighbour.commands(
            "ip link set lo up; ip addr add 198.51.100.1/32 dev lo; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter",
        ));
        // What the neighbour sends over the second link is answered over the first.
        sh("ip route add 198.51.100.1 via 192.0.1.2; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter");
        let links = Links::open().unwrap();
        let ping = |tries: u32| {
            let ping = neighbour.commands(&format!("ping -n -c {tries} -i 0.2 -W 1 -I 198.51.100.1 192.0.2.1"));
            let output = Command::new("sh").args(["-c", &ping]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("packets transmitted"), "{text}{}", String::from_utf8_lossy(&output.stderr));
            output.status.success()
        };
        links.set_reverse_path("here2", 2).await.unwrap();
        assert_eq!(value("here2"), "2");
        assert!(ping(5), "loose");
        links.set_reverse_path("here2", 1).await.unwrap();
        assert_eq!((value("here1"), value("here2")), (value("default"), "1".into()), "only this one");
        assert!(!ping(2), "strict");
        links.set_reverse_path("here2", 0).await.unwrap();
        assert_eq!(value("here2"), "0");
        assert!(ping(5), "off");
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    isolated("an_interface_that_is_not_there_is_named", || async {
        let links = Links::open().unwrap();
        let error = links.set_reverse_path("eth7", 2).await.unwrap_err().to_string();
        assert_eq!(error, "cannot write rp_filter of eth7: No such device (os error 19)");
    });
}
