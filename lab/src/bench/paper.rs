//! Nodes on paper, as large as real ones.

use serde_json::{Value, json};

/// Makes a Node about as long as it is told. What fills most of a real one is the list of images.
pub(super) fn fill(node: &mut Value, bytes: usize) {
    node["status"]["images"] = json!([]);
    let mut room = bytes.saturating_sub(node.to_string().len());
    let images = (0..).map(image).map_while(|image| {
        // A comma stands between two.
        room = room.checked_sub(image.to_string().len() + 1)?;
        Some(image)
    });
    node["status"]["images"] = images.collect();
}

fn image(number: usize) -> Value {
    let name = format!("registry.example/team-{number}/program-{number}");
    json!({ "names": [format!("{name}@sha256:{number:064x}"), format!("{name}:v1.{number}")], "sizeBytes": 52_428_800 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_long_as_told() {
        let mut node = json!({ "kind": "Node", "status": {} });
        fill(&mut node, 12_400);
        assert!((12_000..=12_400).contains(&node.to_string().len()), "{}", node.to_string().len());
    }
}
