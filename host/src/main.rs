//! x
fn main(){ println!("{:?}", twill_engine::runtime().is_ok()); }
