//! Every system call by which log and archive touch the disk, killed or failed once in turn: at start-up, in an append,
//! in an integration, at a checkpoint and while closing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Tally,
    check::{self, check},
    dice::Dice,
    trace::{self, Call},
    victim::{self, Work},
};

const FAULTS: [&str; 3] = ["signal=KILL", "error=EIO", "error=ENOSPC"];
/// Longest time a victim may need, its faults included.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory to start on, and the calls a victim makes there.
struct Scene {
    base: PathBuf,
    work: Work,
    /// Which call of a thread, by name and number, touches the data.
    places: Vec<(String, usize)>,
}

pub fn run(wanted: u64, dice: &mut Dice, tally: &mut Tally) {
    if !trace::has_strace() {
        tally.skipped = Some("no strace that can inject".into());
        return;
    }
    let workshop = check::workshop();
    let scenes: Vec<Scene> = [0, 20, 250].into_iter().map(|before| Scene::record(workshop.path(), before)).collect();
    let places: usize = scenes.iter().map(|scene| scene.places.len()).sum();
    // All of them, in an order of chance, and then again.
    let mut waiting: Vec<(usize, usize, usize)> = Vec::new();
    let mut by_call: BTreeMap<String, u64> = BTreeMap::new();
    let mut tried = 0_u64;
    while tally.happened < wanted && tried < wanted * 4 {
        if waiting.is_empty() {
            let of_scene = |at: usize| (0..scenes[at].places.len()).map(move |place| (at, place));
            waiting = (0..scenes.len())
                .flat_map(of_scene)
                .flat_map(|(at, place)| (0..3).map(move |f| (at, place, f)))
                .collect();
        }
        let (at, place, fault) = waiting.swap_remove(dice.index(waiting.len()));
        tried += 1;
        let scene = &scenes[at];
        let (name, number) = &scene.places[place];
        match scene.hurt(workshop.path(), name, *number, FAULTS[fault]) {
            Ok(0) => {}
            Ok(_) => {
                tally.happened += 1;
                *by_call.entry(name.clone()).or_default() += 1;
            }
            Err(reason) => {
                tally.happened += 1;
                tally.broken.push(format!(
                    "{name} number {number}, {}, on {} entries: {reason}",
                    FAULTS[fault], scene.work.first
                ));
            }
        }
    }
    let told: Vec<String> = by_call.iter().map(|(name, count)| format!("{name} {count}")).collect();
    tally.note = format!("of {places} calls: {}", told.join(", "));
}

impl Scene {
    fn record(workshop: &Path, before: u64) -> Self {
        let folder = workshop.join(format!("scene-{before}"));
        let base = folder.join("base");
        victim::create(&base);
        if before > 0 {
            let work = Work { first: 0, count: before, group: 8, close: false, forget: false };
            let (_, output) = victim::run(None, &base, &folder, &work);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let work = Work { first: before, count: 12, group: 2, close: true, forget: false };
        let data = folder.join("data");
        check::copy(&base, &data);
        let (calls, _) = trace::record(&data, &folder, &work, "");
        Self { base, places: places(&calls, &data), work }
    }

    /// Runs a victim whose call fails, starts again without, and checks. Returns how many faults happened.
    fn hurt(&self, workshop: &Path, name: &str, number: usize, fault: &str) -> Result<usize, String> {
        let data = workshop.join("hurt");
        let _ = fs::remove_dir_all(&data);
        check::copy(&self.base, &data);
        let report = workshop.join("report");
        let mut strace = Command::new("timeout");
        strace.args(["--signal=KILL", &PATIENCE.as_secs().to_string(), "strace", "-f", "-y", "-q", "--seccomp-bpf"]);
        strace.arg("-o").arg(&report).arg("-e").arg(format!("trace={name}"));
        strace.arg("-e").arg(format!("inject={name}:{fault}:when={number}"));
        let begun = Instant::now();
        let (acks, output) = victim::run(Some(strace), &data, workshop, &self.work);
        if begun.elapsed() >= PATIENCE {
            return Err("it hung".into());
        }
        let report = fs::read_to_string(&report).expect("strace writes its record");
        let here = data.to_str().expect("a path of ours");
        let happened = report.lines().filter(|line| line.contains("(INJECTED)") && line.contains(here)).count()
            + usize::from(fault.starts_with("signal") && report.contains("killed by SIGKILL"));
        if happened > 0 && output.status.success() && acks.len() as u64 != self.work.count {
            return Err("it ended well without all acknowledgements".into());
        }
        if happened > 0 {
            check(&data, &acks)?;
        }
        Ok(happened)
    }
}

/// strace counts the calls of each thread for itself.
fn places(calls: &[Call], data: &Path) -> Vec<(String, usize)> {
    let mut counts: HashMap<(u32, &str), usize> = HashMap::new();
    let mut places = BTreeSet::new();
    let mut in_order: Vec<&Call> = calls.iter().filter(|call| call.name != "sendto").collect();
    in_order.sort_by_key(|call| call.began);
    for call in in_order {
        let count = counts.entry((call.thread, &call.name)).or_default();
        *count += 1;
        if call.touches(data) {
            places.insert((call.name.clone(), *count));
        }
    }
    places.into_iter().collect()
}
