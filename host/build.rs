fn main(){ let _ = twill_engine::compiler(); }
