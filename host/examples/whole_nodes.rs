//! Keeps all Nodes of a cluster, whole, as caches of clients commonly do: what the daemon is measured beside.
//!
//! `cargo xtask bench` runs it. It reads the manifests in the folder that is its argument, or with none the Nodes of the API
//! server of the kubeconfig that KUBECONFIG names, and prints how many Nodes it has.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::{env, fs};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};

type Nodes = HashMap<String, Arc<Node>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    if let Some(folder) = env::args_os().nth(1) {
        let nodes = manifests(Path::new(&folder))?;
        println!("{} Nodes", nodes.len());
        // Until it is ended.
        return std::future::pending().await;
    }
    let api: Api<Node> = Api::all(Client::try_default().await?);
    let mut nodes = Nodes::new();
    let mut page = ListParams::default().limit(500);
    let version = loop {
        let list = api.list(&page).await?;
        nodes.extend(list.items.into_iter().map(|node| (node.name_any(), Arc::new(node))));
        page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
        if page.continue_token.is_none() {
            break list.metadata.resource_version.unwrap_or_default();
        }
    };
    println!("{} Nodes", nodes.len());
    let mut events = pin!(api.watch(&WatchParams::default(), &version).await?);
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                nodes.insert(node.name_any(), Arc::new(node));
            }
            WatchEvent::Deleted(node) => drop(nodes.remove(&node.name_any())),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(status.message.into()),
        }
    }
    Ok(())
}

fn manifests(folder: &Path) -> Result<Nodes, Box<dyn Error>> {
    let mut nodes = Nodes::new();
    for file in fs::read_dir(folder)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "json") {
            let node: Node = serde_json::from_slice(&fs::read(&file)?)?;
            nodes.insert(node.name_any(), Arc::new(node));
        }
    }
    Ok(nodes)
}
