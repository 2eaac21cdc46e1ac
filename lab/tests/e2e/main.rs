//! End-to-end tests: real daemons, real pods, real packets, each in a lab of its own.

mod adoption;
mod api;
mod bad_input;
mod claims;
mod command;
mod common;
mod conflist;
mod firewall;
mod healing;
mod health;
mod hostile;
mod http;
mod incremental;
mod ipam;
mod kernel_state;
mod lab;
mod languages;
mod mixed;
mod plugin_status;
mod reachability;
mod swap;
mod switch;
mod takeover;
mod telemetry;
mod third_component;
mod tunnels;
