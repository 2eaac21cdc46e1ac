//! `twill ipam`: the node's pod addresses. Works on the files, whether a daemon runs or not.

mod check;
mod list;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::arguments::{DEFAULT_RUN_DIR, DEFAULT_SUBNET_FILE, OutputFormat};
use super::ask::{plain, print};
use super::places::PlacesArguments;
use crate::pool::{Census, Entry, Places, State, give_back};

#[derive(Debug, Args)]
pub(super) struct IpamArguments {
    #[command(subcommand)]
    command: IpamCommand,
}

#[derive(Debug, Subcommand)]
enum IpamCommand {
    /// Show the addresses that are given, who has each, and whether that is so.
    List(ListArguments),
    /// Say what is wrong with the addresses; exit status 1 if anything is.
    Check(CheckArguments),
    /// Show which addresses nobody has any more, and with --yes give them back.
    Gc(GcArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    /// How the answer looks; wide says why.
    #[arg(long, short, value_enum, default_value_t = OutputFormat::Table)]
    output: OutputFormat,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct CheckArguments {
    /// How the answer looks.
    #[arg(long, short, value_enum, default_value_t = OutputFormat::Table)]
    output: OutputFormat,
    /// The file that tells pods' plugins of the node's part of the network.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_SUBNET_FILE)]
    subnet_file: PathBuf,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
struct GcArguments {
    /// Do it.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    at: At,
}

/// Where to look.
#[derive(Debug, Args)]
struct At {
    #[command(flatten)]
    places: PlacesArguments,
    /// The daemon's run directory.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
}

impl At {
    /// The places, of which the pool must be there: whoever asks about it means one.
    fn places(self) -> Result<Places, String> {
        let places = self.places.places(self.run_dir);
        match fs::read_dir(&places.pool) {
            Ok(_) => Ok(places),
            Err(error) => Err(format!(
                "reading the pool {}: {error}; no pod ever had an address there, or it is another folder (--pool-dir)",
                places.pool.display()
            )),
        }
    }
}

pub(super) fn run(arguments: IpamArguments) -> Result<ExitCode, String> {
    match arguments.command {
        IpamCommand::List(ListArguments { output, at }) => {
            let census = census(&at.places()?, &[])?;
            print(&list::text(&census, output)?)?;
            Ok(ExitCode::SUCCESS)
        }
        IpamCommand::Check(CheckArguments { output, subnet_file, at }) => {
            let places = at.places()?;
            let subnets = subnets(&subnet_file)?;
            let findings = check::findings(&places, &census(&places, &subnets)?, &subnets)?;
            print(&check::text(&findings, output)?)?;
            Ok(if findings.list.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(super::FAILED) })
        }
        IpamCommand::Gc(GcArguments { yes, at }) => {
            let places = at.places()?;
            let before = census(&places, &[])?;
            let given = if yes { give_back(&places).map_err(|error| error.to_string())? } else { orphans(&before) };
            print(&given_back(&before, &given, yes))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn census(places: &Places, subnets: &[IpNet]) -> Result<Census, String> {
    Census::take(places, subnets).map_err(|error| error.to_string())
}

fn orphans(census: &Census) -> Vec<Entry> {
    census.orphans().cloned().collect()
}

/// The node's part of the network; none where no daemon has told it yet.
fn subnets(file: &Path) -> Result<Vec<IpNet>, String> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("reading {}: {error}", file.display())),
    };
    let value = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let is_subnet = matches!(key, "FLANNEL_SUBNET" | "FLANNEL_IPV6_SUBNET");
        is_subnet.then(|| value.parse().map(|subnet: IpNet| subnet.trunc()))
    };
    let wrong = |_| format!("{}: a subnet in it is not a network (--subnet-file)", file.display());
    text.lines().filter_map(value).collect::<Result<_, _>>().map_err(wrong)
}

/// Who has an address, as people say it.
fn owner(entry: &Entry) -> String {
    entry.owner.as_ref().map_or_else(|| "nobody".to_owned(), |owner| plain(&owner.to_string()))
}

/// What was given back, or would be.
fn given_back(before: &Census, given: &[Entry], done: bool) -> String {
    let mut text = String::new();
    let what = if done { "gave back" } else { "would give back" };
    for entry in given {
        let _ = writeln!(text, "{what} {}  {}: {}", entry.address, owner(entry), plain(&entry.why));
    }
    let empty: Vec<&Entry> = before.entries.iter().filter(|entry| entry.state == State::Empty).collect();
    for entry in &empty {
        let _ = writeln!(text, "{what} {}  {}", entry.address, plain(&entry.why));
    }
    if given.is_empty() && empty.is_empty() {
        let _ = writeln!(text, "nothing to give back");
    } else if !done {
        let _ = writeln!(text, "Nothing was changed; with --yes it is done.");
    }
    let unknown = before.entries.iter().filter(|entry| entry.state == State::Unknown).count();
    if unknown > 0 {
        let _ = writeln!(
            text,
            "{unknown} more cannot be told to be anybody's or nobody's and stay given; `twill ipam list -o wide` says why"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_as_the_daemon_writes_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("subnet.env");
        assert_eq!(subnets(&file).unwrap(), []);
        fs::write(
            &file,
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_SUBNET=fd00::1/64\n",
        )
        .unwrap();
        let expected: [IpNet; 2] = ["10.244.1.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
        assert_eq!(subnets(&file).unwrap(), expected);
        fs::write(&file, "FLANNEL_SUBNET=x\n").unwrap();
        assert!(subnets(&file).unwrap_err().ends_with("subnet.env: a subnet in it is not a network (--subnet-file)"));
    }
}
