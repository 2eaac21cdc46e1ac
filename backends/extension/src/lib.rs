//! A place to start from for those who have flannel's backend `extension`: its published examples, planned instead of run.
//!
//! flannel runs a command when it starts and for each peer that comes or goes. A command can fail in the middle, and what it did
//! stays when the peer's address changes, when somebody deletes a route, when flanneld is restarted. Here the same lines are
//! values: [`hostgw`] and [`vxlan`] say what shall be in the kernel, and the daemon sees to it, again and again. The first
//! lines of each say which command became what; `docs/backends/extension.md` has them side by side.
//!
//! Change one of them into your own, or write a third; the last line names the one that this component is.

pub mod hostgw;
pub mod vxlan;

twill_backend::export_backend!(vxlan::Vxlan);
