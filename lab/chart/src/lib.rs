//! Figures for people: pictures as SVG, and tables, on pages that a program writes a part of.
//!
//! Standard library only, since `cargo xtask` is made of nothing else.

mod page;
mod picture;
mod plot;
mod table;

pub use page::replaced;
pub use picture::{Anchor, Picture};
pub use plot::{Limit, Plot, Series};
pub use table::{aligned, grouped, markdown};
