//! End-to-end tests: real daemons, real pods, real packets, each in a lab of its own.

mod common;
mod lab;
