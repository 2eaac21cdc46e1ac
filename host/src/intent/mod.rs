//! From a backend's answers to what shall be in the kernel: first the [`policy`], which no plan gets around, then the
//! [`wanted`] state, which is the union of all plans that passed.

pub mod policy;
mod stations;
pub mod wanted;
