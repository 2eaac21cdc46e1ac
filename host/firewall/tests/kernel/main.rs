//! Rules in real kernels' tables, each test in a network namespace of its own.

mod iptables;
mod modes;
mod namespace;
mod nftables;
