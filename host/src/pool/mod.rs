//! This node's pool of pod addresses, looked at from outside: how full it is, and which addresses nobody has any more.
//!
//! The CNI plugin gives addresses and takes them back. What it is never told, because a runtime lost its memory or a
//! machine its power, stays given for ever. Here that is found out, and if an operator wants it, given back. Files are read
//! when somebody asks, and at no other time.

mod boot;
mod census;
mod evidence;
mod keeper;
mod places;
mod runtime;
mod whereabouts;

pub(crate) use boot::stamp;
pub use census::{Census, Entry, Fill, give_back};
pub use evidence::State;
pub use keeper::Keeper;
pub use places::{GRACE, POOL_DIR, Places, RESULTS_DIR, RUNTIME_DIRS, STATE_DIR};
