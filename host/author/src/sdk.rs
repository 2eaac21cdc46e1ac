//! The SDK's sources, carried in this program.

use std::fs;
use std::io;
use std::path::Path;

/// Path in the folder of the SDK, and content.
const FILES: [(&str, &str); 12] = [
    ("src/address.rs", include_str!("../../../backends/sdk/src/address.rs")),
    ("src/backend.rs", include_str!("../../../backends/sdk/src/backend.rs")),
    ("src/bindings.rs", include_str!("../../../backends/sdk/src/bindings.rs")),
    ("src/duration.rs", include_str!("../../../backends/sdk/src/duration.rs")),
    ("src/lib.rs", include_str!("../../../backends/sdk/src/lib.rs")),
    ("src/log.rs", include_str!("../../../backends/sdk/src/log.rs")),
    ("src/mac.rs", include_str!("../../../backends/sdk/src/mac.rs")),
    ("src/mtu.rs", include_str!("../../../backends/sdk/src/mtu.rs")),
    ("src/object.rs", include_str!("../../../backends/sdk/src/object.rs")),
    ("src/plan.rs", include_str!("../../../backends/sdk/src/plan.rs")),
    ("src/testing.rs", include_str!("../../../backends/sdk/src/testing.rs")),
    ("wit/backend.wit", include_str!("../../../wit/backend.wit")),
];

const MANIFEST: &str = include_str!("../template/sdk.toml.txt");

/// Writes the SDK into a folder that does not exist yet.
pub(crate) fn write(dir: &Path) -> io::Result<()> {
    for (name, text) in FILES {
        let file = dir.join(name);
        file.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(file, text)?;
    }
    let manifest =
        MANIFEST.replace("{version}", env!("CARGO_PKG_VERSION")).replace("{rust}", env!("CARGO_PKG_RUST_VERSION"));
    fs::write(dir.join("Cargo.toml"), manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    #[test]
    fn every_file_of_the_sdk_is_carried() {
        let sources = fs::read_dir(format!("{ROOT}/backends/sdk/src")).unwrap().flatten();
        let mut there: Vec<String> =
            sources.map(|entry| format!("src/{}", entry.file_name().to_string_lossy())).collect();
        there.push("wit/backend.wit".into());
        there.sort();
        assert_eq!(there, FILES.map(|(name, _)| name));
    }

    #[test]
    fn dependencies_are_those_of_the_tree() {
        let tree = fs::read_to_string(format!("{ROOT}/Cargo.toml")).unwrap();
        let own = fs::read_to_string(format!("{ROOT}/backends/sdk/Cargo.toml")).unwrap();
        let carried: Vec<&str> = MANIFEST.split("[dependencies]\n").nth(1).unwrap().lines().collect();
        for line in &carried {
            assert!(tree.lines().any(|other| other == *line), "Cargo.toml has no line {line}");
        }
        let names = own.split("[dependencies]\n").nth(1).unwrap().lines().take_while(|line| !line.is_empty());
        let names: Vec<&str> = names.map(|line| line.split('.').next().unwrap()).collect();
        assert_eq!(names, carried.iter().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>());
    }
}
