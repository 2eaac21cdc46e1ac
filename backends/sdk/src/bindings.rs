//! What wit-bindgen makes of `wit/backend.wit`. Not part of the interface of this crate; what is, the root re-exports.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::undocumented_unsafe_blocks)]

wit_bindgen::generate!({
    path: "wit",
    world: "backend",
    pub_export_macro: true,
    export_macro_name: "export_planner",
    default_bindings_module: "twill_backend::bindings",
    additional_derives: [PartialEq, Eq, Hash],
});
