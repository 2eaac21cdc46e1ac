//! Every target over its corpus, and over damaged copies of it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use twill_fuzz::{GUESTS, TARGETS, Target};

/// Damaged copies of each file: so many that all of it takes seconds.
const COPIES: u64 = 2000;

/// Bytes with a meaning somewhere.
const NASTY: &[u8] = b"\0\xff{}[]\",:/0\n";

fn files(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// The same numbers in every run.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    (*state >> 33) as usize
}

/// A few bytes changed, taken out, or taken from elsewhere in the file.
fn damaged(whole: &[u8], state: &mut u64) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=next(state) % 4 {
        if bytes.is_empty() {
            break;
        }
        let place = next(state) % bytes.len();
        match next(state) % 5 {
            0 => bytes[place] ^= 1 << (next(state) % 8),
            1 => bytes[place] = NASTY[next(state) % NASTY.len()],
            2 => bytes.truncate(place),
            3 => drop(bytes.drain(place..(place + next(state) % 16).min(bytes.len()))),
            _ => {
                let from = next(state) % whole.len();
                let piece = &whole[from..(from + next(state) % 24).min(whole.len())];
                bytes.splice(place..place, piece.iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn promises_are_kept() {
    for target in TARGETS {
        if target.name == "answers" && std::env::var_os(GUESTS).is_none() {
            let why = format!("{GUESTS} is not set; `cargo xtask test` sets it");
            let _ = writeln!(io::stderr(), "SKIPPED promises_are_kept, answers: {why}");
            continue;
        }
        let files = files(&target);
        assert!(!files.is_empty(), "{}: no corpus", target.name);
        for (file, bytes) in files {
            (target.run)(&bytes);
            let mut state = 1;
            // A sandbox takes a thousand times as long as a parser.
            let copies = if target.name == "answers" { COPIES / 20 } else { COPIES };
            for copy in 0..copies {
                let bytes = damaged(&bytes, &mut state);
                let kept = std::panic::catch_unwind(|| (target.run)(&bytes));
                let shown = &bytes[..bytes.len().min(2000)];
                assert!(kept.is_ok(), "{}, damaged copy {copy}: {}", file.display(), shown.escape_ascii());
            }
        }
    }
}
