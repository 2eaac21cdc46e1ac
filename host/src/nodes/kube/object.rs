//! A Node as it comes over the wire: decoded into the fields that are used, everything else skipped while reading.

use std::borrow::Cow;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};

use crate::nodes::manifest::Manifest;

/// One Node.
#[derive(Debug, Clone)]
pub(super) struct NodeObject {
    /// Name and version only: the client asks for no more.
    metadata: ObjectMeta,
    pub(super) manifest: Manifest,
}

impl<'de> Deserialize<'de> for NodeObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let manifest = Manifest::deserialize(deserializer)?;
        let metadata = ObjectMeta {
            name: manifest.name().map(str::to_owned),
            resource_version: manifest.resource_version().map(str::to_owned),
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, manifest })
    }
}

impl Resource for NodeObject {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
