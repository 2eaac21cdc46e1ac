//! The links of backends: made, changed and taken away.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use twill_model::{Link, LinkKind, NodePlan, Uplink};
use twill_netlink::{Action, Ensured, Error, LinkError, LinkWanted, Step, WireguardDevice};

use super::place::{NoPlace, Place, Tenancy, places};
use super::{ALIAS, Cause, Dataplane, Object, Tenant, link_of};
use crate::backend::planning::BackendId;
use crate::intent::policy::Holder;

/// Why a link of a plan is not there.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// Somebody else made a link of that name meanwhile. It stays.
    #[error("a link {0} is there that is not Twill's: remove or rename it")]
    Foreign(String),
    /// Two backends' links are in each other's way.
    #[error(transparent)]
    Place(#[from] NoPlace),
    /// The kernel.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// What would be done for one link of a backend.
#[derive(Debug)]
pub struct Foreseen {
    /// Whose.
    pub instance: u32,
    /// As its backend plans it.
    pub link: Link,
    /// The name in the kernel, what would be done, and whether another backend has the link as well; or why nothing can.
    pub step: Result<(String, Step, bool), NoPlace>,
}

fn tenancies(backends: &[(BackendId, Arc<NodePlan>)]) -> Vec<Tenancy<'_>> {
    backends.iter().map(|(id, plan)| Tenancy { instance: id.instance, kind: &id.kind, links: &plan.links }).collect()
}

impl Dataplane {
    /// Brings the links of all backends into the state that their plans describe; the most preferred backend comes first.
    /// Returns what went wrong, by backend; the other links are as they should be.
    ///
    /// # Errors
    /// When the kernel does not tell what there is. Then nothing changed.
    pub async fn ensure(
        &mut self,
        backends: &[(BackendId, Arc<NodePlan>)],
        uplink: &Uplink,
    ) -> Result<Vec<(u32, EnsureError)>, Error> {
        let present = self.survey().await?;
        let mut places = places(&tenancies(backends), &present);
        let mut links = HashMap::new();
        let mut errors = Vec::new();
        self.placed.clear();
        for (id, plan) in backends {
            for link in &plan.links {
                let key = (id.instance, link.name.clone());
                let ensured = match places.remove(&key) {
                    Some(Ok(place)) => self.ensure_at(id, link, place, uplink).await,
                    Some(Err(error)) => Err(error.into()),
                    None => Err(NoPlace::Name(link.name.clone()).into()),
                };
                match ensured {
                    Ok(index) => drop(links.insert(key, index)),
                    Err(error) => {
                        self.placed.insert(link.name.clone());
                        errors.push((id.instance, error));
                    }
                }
            }
        }
        self.interfaces.links = links;
        self.watch.set_interest(self.interest());
        Ok(errors)
    }

    /// What the links of `backends` would mean for those that are there; the most preferred backend comes first.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn foresee(
        &mut self,
        backends: &[(BackendId, Arc<NodePlan>)],
        uplink: &Uplink,
    ) -> Result<Vec<Foreseen>, Error> {
        let present = self.survey().await?;
        let mut places = places(&tenancies(backends), &present);
        let mut foreseen = Vec::new();
        for (id, plan) in backends {
            for link in &plan.links {
                let Some(place) = places.remove(&(id.instance, link.name.clone())) else { continue };
                let step = place.map(|place| {
                    let wanted = self.link_wanted(id, link, place.name, uplink);
                    let existing = present.iter().find(|info| info.name == wanted.name);
                    (wanted.name.clone(), twill_netlink::plan(existing, &wanted), place.shared)
                });
                foreseen.push(Foreseen { instance: id.instance, link: link.clone(), step });
            }
        }
        Ok(foreseen)
    }

    /// Brings one link into its state and place; returns its index.
    async fn ensure_at(
        &mut self,
        id: &BackendId,
        link: &Link,
        place: Place,
        uplink: &Uplink,
    ) -> Result<u32, EnsureError> {
        self.placed.insert(place.name.clone());
        if place.shared {
            let existing = self.links.find(&place.name).await.map_err(LinkError::from)?;
            return existing.map(|link| link.index).ok_or_else(|| NoPlace::Name(place.name).into());
        }
        let wanted = self.link_wanted(id, link, place.name.clone(), uplink);
        let ensured = self.ensure_one(&wanted).await?;
        if let LinkKind::Wireguard { port } = wanted.kind {
            let device = WireguardDevice { private_key: self.private_key.clone(), port };
            self.wireguard.insert(ensured.index, None);
            self.tables.set_wireguard_device(ensured.index, &wanted.name, device).await?;
            self.wireguard.insert(ensured.index, Some(port));
        }
        if ensured.action != Action::Unchanged {
            self.touched = true;
            tracing::info!(link = place.name, backend = %id.kind, action = ?ensured.action, "link is as planned");
        }
        let mut name = place.name;
        if let Some(better) = place.rename {
            match self.links.rename(ensured.index, &better).await {
                Ok(()) => {
                    tracing::info!(link = name, to = better, "the name is free: renamed");
                    self.placed.insert(better.clone());
                    name = better;
                }
                // Kernels before 6.2 rename no link that is up. It works under the other name.
                Err(error) => tracing::debug!(link = name, %error, "the link keeps its second name"),
            }
        }
        self.names.insert(ensured.index, name.clone());
        self.own.insert(ensured.index);
        self.note_ensured(LinkWanted { name, ..wanted }, &ensured.action);
        Ok(ensured.index)
    }

    fn link_wanted(&self, id: &BackendId, link: &Link, name: String, uplink: &Uplink) -> LinkWanted {
        LinkWanted {
            name,
            kind: link.kind.clone(),
            underlay: uplink.index,
            underlay_mtu: uplink.mtu,
            mtu: link.mtu,
            mac: link.mac,
            addresses: link.addresses.clone(),
            networks: self.networks.clone(),
            alias: format!("{ALIAS}{}", id.kind),
        }
    }

    /// A link that is wanted as before and had to be touched was touched by somebody else before.
    fn note_ensured(&mut self, wanted: LinkWanted, action: &Action) {
        let cause = match action {
            Action::Unchanged => None,
            Action::Created => Some(Cause::Removed),
            Action::Changed(_) | Action::Adopted(_) | Action::Recreated(_) => Some(Cause::Changed),
        };
        if let Some(cause) = cause.filter(|_| self.ensured.get(&wanted.name) == Some(&wanted)) {
            self.cost.repairs.count(Object::Link, cause);
        }
        self.ensured.insert(wanted.name.clone(), wanted);
    }

    /// The policy looked at the link's name when the plan was made; this looks again, each time.
    async fn ensure_one(&self, wanted: &LinkWanted) -> Result<Ensured, EnsureError> {
        let existing = self.links.find(&wanted.name).await.map_err(LinkError::from)?;
        if existing.is_some_and(|link| Tenant::of(&link).holder(&wanted.kind) == Holder::Foreign) {
            return Err(EnsureError::Foreign(wanted.name.clone()));
        }
        Ok(self.links.ensure(wanted).await?)
    }

    /// Whether a name in the kernel belongs to a link of an attached backend.
    #[must_use]
    pub fn is_placed(&self, name: &str) -> bool {
        self.placed.contains(name)
    }

    /// The kernel's names of an attached backend's links.
    #[must_use]
    pub fn links_of(&self, instance: u32) -> Vec<String> {
        let of = self.interfaces.links.iter().filter(|((owner, _), _)| *owner == instance);
        let mut names: Vec<String> = of.filter_map(|(_, index)| self.names.get(index).cloned()).collect();
        names.sort_unstable();
        names
    }

    /// Names of the links of ours.
    pub fn own_links(&self) -> impl Iterator<Item = &str> {
        self.own.iter().filter_map(|index| self.names.get(index)).map(String::as_str)
    }

    /// Links of ours that no attached backend has: left by an earlier configuration.
    #[must_use]
    pub fn leftover_links(&self) -> Vec<(u32, String)> {
        let mut left: Vec<(u32, String)> = self
            .own
            .iter()
            .filter_map(|index| Some((*index, self.names.get(index)?.clone())))
            .filter(|(_, name)| !self.placed.contains(name))
            .collect();
        left.sort_unstable();
        left
    }

    /// Since when nothing in the kernel leads through the link; none, if something does.
    pub fn unused_since(&mut self, index: u32) -> Option<Instant> {
        if self.table.all_seen().any(|(key, value)| link_of(&key, value.as_ref()) == Some(index)) {
            self.unused.remove(&index);
            return None;
        }
        Some(*self.unused.entry(index).or_insert_with(Instant::now))
    }

    /// Removes a link of ours.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_link(&mut self, index: u32, name: &str) -> Result<(), LinkError> {
        self.links.delete(index).await?;
        self.own.remove(&index);
        self.wireguard.remove(&index);
        self.unused.remove(&index);
        self.interfaces.links.retain(|_, of| *of != index);
        self.ensured.remove(name);
        self.watch.set_interest(self.interest());
        Ok(())
    }
}
