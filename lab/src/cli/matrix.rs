//! Who reaches whom, as a table that fills up.

use std::fmt::Write;
use std::io::{self, IsTerminal};

use twill_lab::{Lab, Ping, Pod, Result};

/// How much a pod sends to each other by TCP.
const BYTES: usize = 256 * 1024;

/// What came of the checks between two pods.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    good: usize,
    bad: usize,
}

/// The table.
pub(super) struct Matrix<'a> {
    lab: &'a Lab,
    /// `cells[from][to]`
    cells: Vec<Vec<Cell>>,
    /// Why checks failed.
    pub(super) failures: Vec<String>,
    /// Whether the table can be drawn over.
    live: bool,
}

impl<'a> Matrix<'a> {
    /// An empty table for all pods of the lab.
    pub(super) fn new(lab: &'a Lab) -> Matrix<'a> {
        let pods = lab.pods().len();
        Matrix {
            lab,
            cells: vec![vec![Cell::default(); pods]; pods],
            failures: Vec::new(),
            live: io::stdout().is_terminal(),
        }
    }

    /// How many checks were made.
    pub(super) fn checks(&self) -> usize {
        self.cells.iter().flatten().map(|cell| cell.good + cell.bad).sum()
    }

    /// Lets every pod ping and send to every other, over every family.
    pub(super) fn fill(&mut self) {
        let pods = self.lab.pods();
        if self.live {
            print!("{}", self.table());
        }
        for (row, from) in pods.iter().enumerate() {
            for (column, to) in pods.iter().enumerate().filter(|(column, _)| *column != row) {
                for outcome in self.check(from, to) {
                    let cell = &mut self.cells[row][column];
                    match outcome {
                        Ok(()) => cell.good += 1,
                        Err(why) => {
                            cell.bad += 1;
                            self.failures.push(why);
                        }
                    }
                }
                if self.live {
                    print!("\x1b[{}A{}", pods.len() + 1, self.table());
                }
            }
        }
        if !self.live {
            print!("{}", self.table());
        }
    }

    fn check(&self, from: &Pod, to: &Pod) -> Vec<Result<(), String>> {
        let way =
            |what: &str, address: &dyn std::fmt::Display| format!("{what} from {} to {} {address}", from.name, to.name);
        let mut outcomes = Vec::new();
        for address in &to.addresses {
            outcomes.push(match Ping::default().send(&from.ns, *address) {
                Ok(true) => Ok(()),
                Ok(false) => Err(format!("{}: no answer", way("ping", address))),
                Err(error) => Err(error.to_string()),
            });
            outcomes.push(self.lab.tcp_transfer(from, *address, BYTES).map(drop).map_err(|error| error.to_string()));
        }
        outcomes
    }

    fn table(&self) -> String {
        let pods = self.lab.pods();
        let end = if self.live { "\x1b[K\n" } else { "\n" };
        let mut text = String::from("  from\\to");
        for pod in pods {
            text.push_str(&format!("{:>7}", pod.name));
        }
        text.push_str(end);
        for (row, from) in pods.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(text, "  {:<7}", from.name);
            for (column, cell) in self.cells[row].iter().enumerate() {
                let shown = match (row == column, cell.good + cell.bad) {
                    (true, _) => "-".into(),
                    (_, 0) => ".".into(),
                    (_, all) => format!("{}/{all}", cell.good),
                };
                let colour = match (self.live, cell.bad, cell.good) {
                    (false, ..) | (_, 0, 0) => ("", ""),
                    (_, 0, _) => ("\x1b[32m", "\x1b[0m"),
                    _ => ("\x1b[31m", "\x1b[0m"),
                };
                let _ = write!(text, "{}{shown:>7}{}", colour.0, colour.1);
            }
            text.push_str(end);
        }
        text
    }
}
