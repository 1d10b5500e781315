//! What the benches share: percentiles, CPU time of processes, how busy the rest of the machine was, result lines.

#![allow(dead_code, reason = "each bench uses its part")]

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

/// The kernel counts CPU time in `/proc` in ticks of this length (`USER_HZ` is 100 on every Linux).
const TICK_MS: u64 = 10;

/// Value of a command-line argument such as `--entries 200000`.
pub fn argument(name: &str, default: u64) -> u64 {
    let arguments: Vec<String> = std::env::args().collect();
    arguments.iter().position(|argument| argument == name).map_or(default, |at| {
        let value = arguments.get(at + 1).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("{name} takes a number"))
    })
}

/// A folder for the data of a bench, on the disk the project lies on: a temporary folder is often only memory.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the measurement")
}

/// The value below which `share` of `values` lie.
pub fn percentile(values: &[Duration], share: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Smallest and largest.
pub fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// User and system time a process has used so far.
pub fn cpu_time(pid: u32) -> Duration {
    stat_ticks(pid, 11)
}

/// The same of the children this process has waited for.
pub fn ended_children_cpu_time() -> Duration {
    stat_ticks(std::process::id(), 13)
}

/// Field `at` after the name, and the one after it.
fn stat_ticks(pid: u32, at: usize) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name in parentheses may hold spaces; the fields are counted after it.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a stat line").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number of ticks");
    Duration::from_millis((ticks(at) + ticks(at + 1)) * TICK_MS)
}

/// Time all cores together spent on anything, and were taken away by the hypervisor.
fn machine_busy() -> Duration {
    let stat = fs::read_to_string("/proc/stat").expect("Linux");
    let line = stat.lines().next().expect("the line of all cores");
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map(|field| field.parse().expect("ticks")).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    Duration::from_millis((ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6] + ticks[7]) * TICK_MS)
}

/// One stretch of time: how long it took, what processes used in it, and what everybody else used.
pub struct Stretch {
    started: Instant,
    pids: Vec<u32>,
    cpu_before: Vec<Duration>,
    busy_before: Duration,
}

pub struct Used {
    pub wall: Duration,
    /// In the order of the processes asked for.
    pub cpu: Vec<Duration>,
    /// Share of the machine that other processes used; 0 is a quiet machine.
    pub others: f64,
}

impl Stretch {
    pub fn start(pids: &[u32]) -> Self {
        let cpu_before = pids.iter().map(|pid| cpu_time(*pid)).collect();
        Self { started: Instant::now(), pids: pids.to_vec(), cpu_before, busy_before: machine_busy() }
    }

    pub fn end(self) -> Used {
        let wall = self.started.elapsed();
        let busy = machine_busy() - self.busy_before;
        let cpu: Vec<Duration> =
            self.pids.iter().zip(&self.cpu_before).map(|(pid, before)| cpu_time(*pid) - *before).collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        let others = busy.saturating_sub(cpu.iter().sum()).as_secs_f64() / (wall.as_secs_f64() * cores);
        Used { wall, cpu, others }
    }
}

/// A file that is appended to and synced, as the log is: what one group commit costs at least.
pub struct SyncedFile(File);

impl SyncedFile {
    pub fn create(path: &Path) -> Self {
        Self(OpenOptions::new().create(true).append(true).open(path).expect("a file"))
    }

    /// Time of one append of `bytes` bytes with its fdatasync.
    pub fn append(&mut self, bytes: usize) -> Duration {
        let bytes = vec![0x5a; bytes];
        let started = Instant::now();
        self.0.write_all(&bytes).and_then(|()| self.0.sync_data()).expect("a synced append");
        started.elapsed()
    }
}

/// Bytes on disk below `path`: blocks really taken.
pub fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    let below: u64 = match fs::read_dir(path) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| disk_bytes(&entry.path())).sum(),
        Err(_) => 0,
    };
    meta.blocks() * 512 + below
}

/// One result for machines: a line of JSON on standard output.
pub fn result(bench: &str, value: serde_json::Value) {
    let mut line = serde_json::json!({ "bench": bench });
    if let (Some(line), serde_json::Value::Object(value)) = (line.as_object_mut(), value) {
        line.extend(value);
    }
    println!("{line}");
}

/// `met` or `MISSED`, for tables.
pub fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
