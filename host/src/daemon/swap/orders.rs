//! What operators ask a running daemon for: to say what a change would do, and to go back.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::Daemon;
use super::super::control::{Answer, Order, Request};
use super::Phase;
use crate::backend::record::Refused;

impl Daemon {
    /// Does what somebody asks for, if it is possible now.
    pub(super) fn take_order(&mut self, request: Request, answer: oneshot::Sender<Answer>) {
        if self.swap.trial.is_some() || !matches!(self.swap.phase, Phase::Rest | Phase::Draining) {
            let phase = self.swap.phase.name().unwrap_or("being tried");
            let reason = format!("a change of backends is {phase} at the moment; `twill status` shows how far it is");
            return drop(answer.send(Answer::Refused { reason }));
        }
        match request {
            Request::DryRun { net_conf } => {
                let goal = match &net_conf {
                    Some(text) => self.swap.files.suppose(text),
                    None => self.swap.files.read(),
                };
                match goal {
                    Ok(goal) if goal.conf.networks != self.conf.networks => {
                        let reason = "another Network, or another family: that is only taken at the start".to_owned();
                        drop(answer.send(Answer::Refused { reason }));
                    }
                    Ok(goal) => self.begin(goal, Some(answer), None),
                    Err(error) if error.awaits_pull() => self.pull_for(net_conf, answer),
                    Err(error) => drop(answer.send(Answer::Refused { reason: error.to_string() })),
                }
            }
            Request::Rollback => drop(answer.send(match self.go_back("somebody asked for it", true) {
                Ok(message) => Answer::Done { message },
                Err(reason) => Answer::Refused { reason },
            })),
        }
    }

    /// Pulls what a dry run needs, and begins it again then.
    fn pull_for(&self, net_conf: Option<String>, answer: oneshot::Sender<Answer>) {
        let (files, again) = (Arc::clone(&self.swap.files), self.swap.again.clone());
        tokio::spawn(async move {
            match files.fetch(net_conf.clone()).await {
                // Whoever asked learns of a daemon that ends by itself.
                Ok(()) => drop(again.send(Order { request: Request::DryRun { net_conf }, answer }).await),
                Err(error) => drop(answer.send(Answer::Refused { reason: error.to_string() })),
            }
        });
    }

    /// Goes back to what was accepted before; until the files ask for something else again, they are not followed.
    pub(super) fn go_back(&mut self, reason: &str, by_operator: bool) -> Result<String, String> {
        let Some(previous) = &self.swap.accepted.previous else {
            return Err("there is nothing to go back to: this node has not changed its backends yet".to_owned());
        };
        let goal = self.swap.files.again(previous).map_err(|error| error.to_string())?;
        let kinds: Vec<&str> = goal.conf.backends.iter().map(|backend| backend.kind.as_str()).collect();
        let message = format!("going back to {}", kinds.join(", "));
        tracing::warn!("{message}: {reason}");
        self.swap.accepted.refused =
            Some(Refused { fingerprint: self.swap.fingerprint.clone(), reason: reason.to_owned(), by_operator });
        self.swap.counts.rolled_back += 1;
        self.begin(goal, None, Some(reason.to_owned()));
        Ok(message)
    }
}
