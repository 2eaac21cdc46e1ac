//! How many peers are asked about, whatever the backend makes of it.
//!
//! The rules: at most [`BATCH`] peers a call. A call that faults is repeated in halves until the peers that bring it down
//! are found; they alone go without an answer. A backend that faults whatever it is asked is given up soon. A peer with
//! two families that gets no plan is asked about once more, each family alone, so that neither has to wait for the other.
//!
//! This is plain logic over a function that makes one call, and is tested as such.

use twill_model::{Family, Peer, Verdict};

use crate::fault::{CallError, Fault};

/// Peers a call, as the contract says.
pub(crate) const BATCH: usize = 256;
/// Calls more than there are batches. Finding one peer among 256 takes 16.
const EXTRA_CALLS: usize = 64;
/// Faults in one batch after which the peers are not the cause: the way down to a single peer is 9 long.
const HOPELESS: usize = 12;

/// What the backend answers about one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerAnswer {
    /// Its verdict.
    Verdict(Verdict),
    /// There is no plan for the peer as a whole, but for one of its families. Each family has its own verdict; what the
    /// kernel holds for a family without a plan is to be kept.
    Mixed(Vec<(Family, Verdict)>),
    /// It answered what the contract does not allow; says what and why.
    Violation(String),
    /// It was stopped each time it was asked about this peer.
    Faulted(Fault),
}

/// Asks about all peers, in their order, by means of calls about some.
pub(crate) fn plan_peers(
    peers: &[Peer],
    mut call: impl FnMut(&[Peer]) -> Result<Vec<PeerAnswer>, CallError>,
) -> Result<Vec<PeerAnswer>, CallError> {
    let mut extra = EXTRA_CALLS;
    let mut answers = each(peers, &mut extra, &mut call)?;

    let mixed: Vec<usize> = (0..peers.len()).filter(|&i| has_no_plan(&peers[i], &answers[i])).collect();
    let alone: Vec<Peer> = mixed.iter().flat_map(|&i| family_by_family(&peers[i])).collect();
    let mut verdicts = each(&alone, &mut extra, &mut call)?.into_iter();
    for i in mixed {
        let families = peers[i].families.iter().map(|f| f.family);
        if let Some(answer) = combined(families.zip(verdicts.by_ref()).collect()) {
            answers[i] = answer;
        }
    }
    Ok(answers)
}

fn has_no_plan(peer: &Peer, answer: &PeerAnswer) -> bool {
    peer.families.len() > 1 && matches!(answer, PeerAnswer::Verdict(verdict) if !matches!(verdict, Verdict::Plan(_)))
}

fn family_by_family(peer: &Peer) -> impl Iterator<Item = Peer> + '_ {
    peer.families.iter().map(|family| Peer { families: vec![family.clone()], ..peer.clone() })
}

/// The answer for the whole peer, if asking about its families has brought more than the first answer.
fn combined(families: Vec<(Family, PeerAnswer)>) -> Option<PeerAnswer> {
    let mut verdicts = Vec::new();
    for (family, answer) in families {
        match answer {
            PeerAnswer::Verdict(verdict) => verdicts.push((family, verdict)),
            other => return Some(other),
        }
    }
    let planned = verdicts.iter().any(|(_, verdict)| matches!(verdict, Verdict::Plan(_)));
    planned.then_some(PeerAnswer::Mixed(verdicts))
}

fn each(
    peers: &[Peer],
    extra: &mut usize,
    call: &mut impl FnMut(&[Peer]) -> Result<Vec<PeerAnswer>, CallError>,
) -> Result<Vec<PeerAnswer>, CallError> {
    let mut answers = Vec::with_capacity(peers.len());
    let mut answered = false;
    for batch in peers.chunks(BATCH) {
        let mut open = vec![batch];
        let mut faults = 0;
        while let Some(part) = open.pop() {
            match call(part) {
                Ok(list) => {
                    answered = true;
                    answers.extend(list);
                }
                Err(CallError::Fault(fault)) => {
                    faults += 1;
                    let hopeless = !answered && faults >= HOPELESS;
                    if hopeless {
                        return Err(CallError::Fault(fault));
                    }
                    if part.len() == 1 || *extra < 2 {
                        answers.extend(part.iter().map(|_| PeerAnswer::Faulted(fault.clone())));
                    } else {
                        *extra -= 2;
                        let (first, second) = part.split_at(part.len() / 2);
                        open.extend([second, first]);
                    }
                }
                Err(other) => return Err(other),
            }
        }
    }
    match answers.first() {
        Some(PeerAnswer::Faulted(fault)) if !answered && peers.len() > 1 => Err(CallError::Fault(fault.clone())),
        _ => Ok(answers),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use twill_model::PeerFamily;

    use super::*;

    fn peer(i: usize, families: &[Family]) -> Peer {
        let family = |family: &Family| PeerFamily {
            family: *family,
            subnets: Vec::new(),
            public: IpAddr::from([0, 0, 0, 0]),
            published: None,
            on_link: true,
        };
        Peer { name: i.to_string(), backend: String::new(), families: families.iter().map(family).collect() }
    }

    fn peers(count: usize) -> Vec<Peer> {
        (0..count).map(|i| peer(i, &[Family::V4])).collect()
    }

    fn trap() -> Fault {
        Fault::Trapped("test".into())
    }

    fn plan() -> PeerAnswer {
        PeerAnswer::Verdict(Verdict::Plan(Vec::new()))
    }

    /// Plans everybody but faults where one of `bad` is asked about; counts calls.
    fn ask(peers: &[Peer], bad: &[usize]) -> (Result<Vec<PeerAnswer>, CallError>, usize) {
        let mut calls = 0;
        let answers = plan_peers(peers, |part| {
            calls += 1;
            assert!(!part.is_empty() && part.len() <= BATCH);
            if part.iter().any(|p| bad.contains(&p.name.parse().unwrap())) {
                return Err(CallError::Fault(trap()));
            }
            Ok(part.iter().map(|p| PeerAnswer::Verdict(Verdict::Invalid(p.name.clone()))).collect())
        });
        (answers, calls)
    }

    #[test]
    fn in_batches_and_in_order() {
        let (answers, calls) = ask(&peers(600), &[]);
        assert_eq!(calls, 3);
        for (i, answer) in answers.unwrap().iter().enumerate() {
            assert_eq!(*answer, PeerAnswer::Verdict(Verdict::Invalid(i.to_string())));
        }
        assert_eq!(ask(&[], &[]), (Ok(Vec::new()), 0));
    }

    #[test]
    fn those_who_bring_it_down_are_found() {
        for bad in [vec![0], vec![255], vec![100], vec![3, 200], vec![256], vec![5, 599]] {
            let (answers, calls) = ask(&peers(600), &bad);
            for (i, answer) in answers.unwrap().iter().enumerate() {
                assert_eq!(*answer == PeerAnswer::Faulted(trap()), bad.contains(&i), "{i} of {bad:?}");
            }
            assert!(calls <= 3 + 16 * bad.len(), "{calls}");
        }
    }

    #[test]
    fn a_backend_that_always_faults_is_given_up() {
        let all: Vec<usize> = (0..5000).collect();
        let (answers, calls) = ask(&peers(5000), &all);
        assert_eq!(answers, Err(CallError::Fault(trap())));
        assert!(calls <= HOPELESS, "{calls}");
        assert_eq!(ask(&peers(3), &all).0, Err(CallError::Fault(trap())));
        assert_eq!(ask(&peers(1), &all).0, Ok(vec![PeerAnswer::Faulted(trap())]), "one peer may be the cause");
    }

    #[test]
    fn many_bad_peers_cost_a_bounded_number_of_calls() {
        let bad: Vec<usize> = (0..5000).filter(|i| i % 7 == 3).collect();
        let (answers, calls) = ask(&peers(5000), &bad);
        let answers = answers.unwrap();
        assert_eq!(answers.len(), 5000);
        assert!(bad.iter().all(|&i| answers[i] == PeerAnswer::Faulted(trap())));
        assert!(calls <= 20 + EXTRA_CALLS, "{calls}");
    }

    #[test]
    fn other_errors_end_it() {
        let wrong = CallError::WrongLength { asked: 2, got: 1 };
        assert_eq!(plan_peers(&peers(2), |_| Err(wrong.clone())), Err(wrong.clone()));
    }

    /// IPv6 is invalid, alone and as a part.
    fn dual(peer: &Peer) -> PeerAnswer {
        match peer.families.iter().any(|f| f.family == Family::V6) {
            true => PeerAnswer::Verdict(Verdict::Invalid("IPv6".into())),
            false => plan(),
        }
    }

    #[test]
    fn one_family_does_not_wait_for_the_other() {
        let peers = [peer(0, &[Family::V4]), peer(1, &Family::ALL), peer(2, &[Family::V6]), peer(3, &Family::ALL)];
        let answers = plan_peers(&peers, |part| Ok(part.iter().map(dual).collect())).unwrap();
        let invalid = || Verdict::Invalid("IPv6".into());
        let mixed = PeerAnswer::Mixed(vec![(Family::V4, Verdict::Plan(Vec::new())), (Family::V6, invalid())]);
        assert_eq!(answers, [plan(), mixed.clone(), PeerAnswer::Verdict(invalid()), mixed]);
    }

    #[test]
    fn no_family_has_a_plan() {
        let incomplete = || PeerAnswer::Verdict(Verdict::Incomplete("wait".into()));
        let mut calls = 0;
        let answers = plan_peers(&[peer(0, &Family::ALL)], |part| {
            calls += 1;
            Ok(part.iter().map(|_| incomplete()).collect())
        });
        assert_eq!((answers, calls), (Ok(vec![incomplete()]), 2));
    }
}
