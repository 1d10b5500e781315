//! What the allocator costs a frame: page faults and time for frames of 1.3 MB that are received on one thread and
//! dropped on another, as fast as they go and at the pace of a line.
//!
//! `cargo bench --bench allocator`. Each row is its own process, because a process has one allocator.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    process::Command,
    sync::{
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use mimalloc::MiMalloc;

const FRAME_BYTES: usize = 1_300_000;
/// Frames before anything is counted.
const WARM_FRAMES: usize = 50;
const FRAMES: usize = 500;
/// 100 parts per second.
const PACE: Duration = Duration::from_millis(10);

/// Names the allocator of a child process; the parent has none.
const VARIABLE: &std::ffi::CStr = c"LINEPROOF_BENCH_ALLOCATOR";

/// glibc's allocator or mimalloc, as the environment said before the first allocation.
struct Chosen(AtomicU8);

impl Chosen {
    fn is_mimalloc(&self) -> bool {
        let chosen = match self.0.load(Ordering::Relaxed) {
            0 => {
                // SAFETY: the variable is read before the process has a second thread, and nothing sets it later.
                let value = unsafe { libc::getenv(VARIABLE.as_ptr()) };
                // SAFETY: a value that is there ends in a zero byte, so it has a first byte.
                let chosen = if !value.is_null() && unsafe { *value }.cast_unsigned() == b'm' { 2 } else { 1 };
                self.0.store(chosen, Ordering::Relaxed);
                chosen
            }
            chosen => chosen,
        };
        chosen == 2
    }
}

// SAFETY: every call goes to one allocator, the same for the whole life of the process.
unsafe impl GlobalAlloc for Chosen {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { if self.is_mimalloc() { MiMalloc.alloc(layout) } else { System.alloc(layout) } }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { if self.is_mimalloc() { MiMalloc.dealloc(pointer, layout) } else { System.dealloc(pointer, layout) } }
    }
}

#[global_allocator]
static ALLOCATOR: Chosen = Chosen(AtomicU8::new(0));

fn main() {
    if let Ok(name) = std::env::var(VARIABLE.to_str().expect("ASCII")) {
        return measure(&name);
    }
    println!("{:24} {:>14} {:>12} {:>14} {:>12}", "allocator", "faults/frame", "us/frame", "paced: faults", "us/frame");
    let keep = ("MIMALLOC_PURGE_DELAY", "-1");
    let rows = [("system", None), ("system, kept", None), ("mimalloc", None), ("mimalloc, never purged", Some(keep))];
    for (name, setting) in rows {
        let program = std::env::current_exe().expect("this program");
        let status = Command::new(program).env("LINEPROOF_BENCH_ALLOCATOR", name).envs(setting).status();
        assert!(status.expect("a child process").success(), "{name}");
    }
}

fn measure(name: &str) {
    if name == "system, kept" {
        // SAFETY: sets two numbers of glibc's allocator: keep what is freed, up to 256 MiB.
        #[cfg(target_env = "gnu")]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 20);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
        }
    }
    let (fast, paced) = (frames(None), frames(Some(PACE)));
    println!("{name:24} {:>14.1} {:>12.0} {:>14.1} {:>12.0}", fast.0, fast.1, paced.0, paced.1);
}

/// Page faults and microseconds of processor time per frame.
fn frames(pace: Option<Duration>) -> (f64, f64) {
    let (sender, receiver) = mpsc::sync_channel::<Vec<u8>>(4);
    let worker = std::thread::spawn(move || {
        let mut start = used();
        for (number, frame) in receiver.iter().enumerate() {
            std::hint::black_box(blake3::hash(&frame));
            drop(frame);
            if number + 1 == WARM_FRAMES {
                start = used();
            }
        }
        let end = used();
        ((end.0 - start.0) as f64 / FRAMES as f64, (end.1 - start.1).as_secs_f64() * 1e6 / FRAMES as f64)
    });
    let begin = Instant::now();
    for number in 0..WARM_FRAMES + FRAMES {
        if let Some(pace) = pace {
            std::thread::sleep((begin + pace * number as u32).saturating_duration_since(Instant::now()));
        }
        // A message arrives in pieces and is gathered, as in HTTP/2.
        let mut frame = Vec::with_capacity(FRAME_BYTES);
        while frame.len() < FRAME_BYTES {
            frame.resize((frame.len() + 16_384).min(FRAME_BYTES), number as u8);
        }
        sender.send(frame).expect("the worker lives");
    }
    drop(sender);
    worker.join().expect("the worker ends")
}

/// Page faults without disk access, and processor time, of the process so far.
fn used() -> (i64, Duration) {
    // SAFETY: `rusage` is plain data for which zeroes are valid; the kernel fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0, "a process may ask for its own usage");
        usage
    };
    let time = |value: libc::timeval| Duration::new(value.tv_sec.cast_unsigned(), value.tv_usec as u32 * 1000);
    (usage.ru_minflt, time(usage.ru_utime) + time(usage.ru_stime))
}
