//! `make faults`: everything that can go wrong is made to, many times, and nothing acknowledged may be lost or doubled.
//!
//! A row injects one kind of fault, counts how many really happened, and checks after each. `docs/reliability.md` says
//! what each row does and what it found. `LINEPROOF_TIER` is short, medium or long; `LINEPROOF_SEED` repeats a run;
//! `LINEPROOF_ROWS=kill,power` runs some rows only.

use std::{process::ExitCode, time::Instant};

mod calls;
mod check;
mod cut;
mod dice;
#[allow(dead_code, reason = "shared with tests/it, which uses all of it")]
#[path = "../it/disk.rs"]
mod disk;
mod forget;
mod full;
#[allow(dead_code, reason = "shared with tests/it, which uses all of it")]
#[path = "../it/harness.rs"]
mod harness;
mod kills;
#[cfg(feature = "planted-bugs")]
mod planted;
mod proofs;
mod retries;
mod tamper;
mod trace;
mod victim;

use dice::Dice;

/// How long a run may take: some 4 minutes, 35 minutes, 4 hours on two cores.
#[derive(Clone, Copy)]
enum Tier {
    Short,
    Medium,
    Long,
}

/// What a row did.
#[derive(Default)]
pub struct Tally {
    /// Faults that really happened.
    pub happened: u64,
    /// What must not have come of them, with what repeats it.
    pub broken: Vec<String>,
    /// What a reader wants to know besides.
    pub note: String,
    /// Why nothing could be tried here.
    pub skipped: Option<String>,
}

/// Broken promises that are told in full.
const TOLD_MAX: usize = 10;

type Run = fn(u64, &mut Dice, &mut Tally);

struct Row {
    name: &'static str,
    what: &'static str,
    /// Faults in the tiers.
    wanted: [u64; 3],
    run: Run,
}

const ROWS: &[Row] = &[
    Row { name: "proofs", what: "proofs against a naive tree", wanted: [1_000, 50_000, 200_000], run: proofs::run },
    Row { name: "tamper", what: "bytes and files changed", wanted: [2_000, 100_000, 500_000], run: tamper::run },
    Row { name: "power", what: "power cut, modelled", wanted: [300, 3_000, 30_000], run: cut::run },
    Row { name: "calls", what: "system calls killed or failed", wanted: [300, 1_500, 15_000], run: calls::run },
    Row { name: "kill", what: "kill -9 under 8 clients", wanted: [20, 300, 2_000], run: kills::run },
    Row { name: "retry", what: "doubled, cancelled, sent again", wanted: [200, 10_000, 50_000], run: retries::run },
    #[cfg(feature = "planted-bugs")]
    Row { name: "planted", what: "bugs of our own, to be caught", wanted: [13, 13, 13], run: planted::run },
    Row { name: "full", what: "disk full to the last byte", wanted: [1, 10, 50], run: full::run },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|argument| argument == victim::COMMAND) {
        return victim::main(&arguments[1..]);
    }
    // `cargo test NAME` asks every test target for NAME; this one has rows instead.
    if arguments.iter().any(|argument| argument == "--list" || !argument.starts_with('-')) {
        return ExitCode::SUCCESS;
    }
    let tier = match std::env::var("LINEPROOF_TIER").as_deref() {
        Ok("medium") => Tier::Medium,
        Ok("long") => Tier::Long,
        Ok("short" | "") | Err(_) => Tier::Short,
        Ok(other) => {
            eprintln!("LINEPROOF_TIER is short, medium or long, not {other:?}");
            return ExitCode::from(2);
        }
    };
    let seed = std::env::var("LINEPROOF_SEED").ok().filter(|seed| !seed.is_empty());
    let seed: u64 = seed.map_or_else(dice::seed_of_today, |seed| seed.parse().expect("LINEPROOF_SEED is a number"));
    let only = std::env::var("LINEPROOF_ROWS").unwrap_or_default();
    println!("faults: seed {seed}; LINEPROOF_SEED={seed} repeats this run");
    let mut red = 0;
    for row in ROWS.iter().filter(|row| only.is_empty() || only.split(',').any(|name| name == row.name)) {
        red += u32::from(!run(row, tier, seed));
    }
    if red == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a row, tells what happened, and whether it is green.
fn run(row: &Row, tier: Tier, seed: u64) -> bool {
    let wanted = row.wanted[tier as usize];
    let begun = Instant::now();
    let mut tally = Tally::default();
    // A row's dice do not depend on which rows ran before.
    (row.run)(wanted, &mut Dice::new(seed, row.name), &mut tally);
    let took = begun.elapsed().as_secs_f32();
    let head = format!("{:8} {:32}", row.name, row.what);
    if let Some(why) = tally.skipped {
        println!("{head} skipped: {why}");
        return true;
    }
    let green = tally.broken.is_empty() && tally.happened >= wanted;
    let verdict = if green { "ok" } else { "RED" };
    println!("{head} {:6} of {wanted:6} faults happened, {took:6.1} s  {verdict}  {}", tally.happened, tally.note);
    for broken in tally.broken.iter().take(TOLD_MAX) {
        println!("         {broken}");
    }
    if tally.broken.len() > TOLD_MAX {
        println!("         and {} more", tally.broken.len() - TOLD_MAX);
    }
    green
}
