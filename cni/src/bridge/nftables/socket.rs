//! A blocking netlink socket to netfilter. The kernel answers inside the send.

use std::io;
use std::thread;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket as Netlink, SocketAddr};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use twill_wire::messages;

use super::Table;
use super::rule::Rule;
use super::transaction::Transaction;
use super::wire::{
    CHAIN_NAME, FAMILY_HEADER, GET_CHAIN, GET_RULE, NLM_F_DUMP, NLM_F_DUMP_INTR, RULE_CHAIN, of_table, question,
};

/// The kernel fills at most so much at a time.
const READ_SIZE: usize = 32 * 1024;
/// How often something is tried again that others changed meanwhile. Each of them gets on, so this is a bound on how many
/// plugins may work on the same rules at the same moment.
const ATTEMPTS: usize = 30;

/// A socket for questions and transactions in the calling thread's network namespace.
pub(in crate::bridge) struct Socket {
    netlink: Netlink,
    buffer: Vec<u8>,
}

impl Socket {
    pub(in crate::bridge) fn open() -> io::Result<Socket> {
        let mut netlink = Netlink::new(NETLINK_NETFILTER)?;
        netlink.bind_auto()?;
        netlink.connect(&SocketAddr::new(0, 0))?;
        Ok(Socket { netlink, buffer: vec![0; READ_SIZE] })
    }

    /// Whether there is a chain.
    pub(in crate::bridge) fn has_chain(&mut self, table: Table<'_>, chain: &str) -> io::Result<bool> {
        let names = of_table(table).text(CHAIN_NAME, chain);
        self.netlink.send(&question(GET_CHAIN, 0, table.family, &names), 0)?;
        let message = messages(self.receive(RecvFlags::empty())?).next().ok_or(io::ErrorKind::UnexpectedEof)?;
        match message.errno() {
            None | Some(0) => Ok(true),
            Some(code) if is_absent(code) => Ok(false),
            Some(code) => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// The rules of a chain, or of all chains of a table. A table or chain that is not there has none.
    pub(in crate::bridge) fn rules(&mut self, table: Table<'_>, chain: Option<&str>) -> io::Result<Vec<Rule>> {
        let mut filter = of_table(table);
        if let Some(chain) = chain {
            filter = filter.text(RULE_CHAIN, chain);
        }
        // Kernels differ in how much they filter.
        let wanted = |rule: &Rule| rule.table == table.name && chain.is_none_or(|chain| rule.chain == chain);
        for _ in 0..ATTEMPTS {
            self.netlink.send(&question(GET_RULE, NLM_F_DUMP, table.family, &filter), 0)?;
            if let Some(mut rules) = self.list()? {
                rules.retain(wanted);
                return Ok(rules);
            }
        }
        Err(Errno::BUSY.into())
    }

    /// Reads a list to its end; none if it changed meanwhile.
    fn list(&mut self) -> io::Result<Option<Vec<Rule>>> {
        let (mut rules, mut changed) = (Vec::new(), false);
        loop {
            for message in messages(self.receive(RecvFlags::empty())?) {
                changed |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.errno() {
                    None => rules.extend(message.payload.get(FAMILY_HEADER..).and_then(Rule::decode)),
                    Some(0) => return Ok((!changed).then_some(rules)),
                    Some(code) if code == Errno::INTR.raw_os_error() => return Ok(None),
                    Some(code) if is_absent(code) => return Ok(Some(Vec::new())),
                    Some(code) => return Err(io::Error::from_raw_os_error(code)),
                }
            }
        }
    }

    /// Makes the changes that `plan` finds to be needed. It is asked again if something that it has seen went meanwhile.
    ///
    /// The kernel has whoever closes the socket wait until what was deleted is freed, some ten milliseconds. Nobody needs to
    /// wait for that here, so another thread does.
    pub(in crate::bridge) fn change(
        mut self,
        plan: impl FnMut(&mut Socket) -> io::Result<Transaction>,
    ) -> io::Result<()> {
        let outcome = self.try_change(plan);
        // Without a thread it is closed here.
        let _ = thread::Builder::new().spawn(move || drop(self));
        outcome
    }

    fn try_change(&mut self, mut plan: impl FnMut(&mut Socket) -> io::Result<Transaction>) -> io::Result<()> {
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            let transaction = plan(self)?;
            if transaction.is_empty() {
                return Ok(());
            }
            outcome = self.commit(&transaction);
            let overtaken = |error: &io::Error| {
                let again = [Errno::NOENT, Errno::EXIST, Errno::BUSY, Errno::AGAIN, Errno::INTR];
                again.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
            };
            match &outcome {
                Err(error) if overtaken(error) => {}
                _ => return outcome,
            }
        }
        outcome
    }

    fn commit(&mut self, transaction: &Transaction) -> io::Result<()> {
        self.netlink.send(&transaction.to_bytes(), 0)?;
        let (mut done, mut failure) = (false, None);
        loop {
            let datagram = match self.receive(RecvFlags::DONTWAIT) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            for code in messages(datagram).filter_map(|message| message.errno()) {
                match code {
                    0 => done = true,
                    // The first failure is the reason; those behind it may follow from it.
                    _ => failure = failure.or(Some(code)),
                }
            }
        }
        match failure {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None if done => Ok(()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn receive(&mut self, flags: RecvFlags) -> io::Result<&[u8]> {
        loop {
            let mut buffer = self.buffer.as_mut_slice();
            match self.netlink.recv(&mut buffer, flags.bits().cast_signed()) {
                Ok(length) => return Ok(self.buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// No such table or chain, or no such family in this kernel. One without nf_tables calls every question invalid.
fn is_absent(code: i32) -> bool {
    let absent = [Errno::NOENT, Errno::OPNOTSUPP, Errno::AFNOSUPPORT, Errno::INVAL];
    absent.iter().any(|errno| code == errno.raw_os_error())
}
