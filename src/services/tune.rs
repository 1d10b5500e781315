//! Measures how a model runs best on this machine: which execution provider, how many sessions of how many threads, how many frames
//! together. Inference alone; decoding and preparing come on top and are the same for all.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::inspect::{BATCH_FRAMES_MAX, Measured};
use crate::{
    core::canary,
    ports::inference::{InferenceError, InferenceSession, ModelRuntime, ModelSpec, Outputs, Provider, SessionOptions},
};

/// Batches are tried up to this many frames.
const TRIED_FRAMES_MAX: usize = 16;
const _: () = assert!(TRIED_FRAMES_MAX <= BATCH_FRAMES_MAX);

/// Sessions of one kind, each on its own thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub provider: Provider,
    pub sessions: usize,
    /// Threads of each session.
    pub threads: usize,
}

/// What one layout does.
#[derive(Clone, Debug)]
pub struct LayoutSpeed {
    pub layout: Layout,
    /// Of all sessions together, each always busy.
    pub frames_per_s: f64,
    /// Median of one session while the others rest.
    pub alone: Duration,
}

/// The layouts that are worth trying on a machine of so many cores: sessions of one thread, of two where there are enough, and one
/// session of all.
#[must_use]
pub fn layouts(provider: &Provider, cores: usize) -> Vec<Layout> {
    let mut threads = vec![1, 2, cores];
    threads.retain(|threads| *threads <= cores && cores.is_multiple_of(*threads));
    threads.sort_unstable();
    threads.dedup();
    let layout = |threads| Layout { provider: provider.clone(), sessions: cores / threads, threads };
    threads.into_iter().map(layout).collect()
}

/// Measures one layout for as long as `time` alone, and as long busy.
///
/// # Errors
/// [`InferenceError`].
pub fn measure(
    runtime: &dyn ModelRuntime,
    spec: &ModelSpec,
    layout: &Layout,
    time: Duration,
) -> Result<LayoutSpeed, InferenceError> {
    let options = options(layout);
    let sessions = (0..layout.sessions).map(|_| runtime.load(spec, &options));
    let mut sessions: Vec<_> = sessions.collect::<Result<_, _>>()?;
    let alone = alone(sessions[0].as_mut(), spec, time)?;
    let (start, stop) = (Barrier::new(layout.sessions + 1), AtomicBool::new(false));
    let (frames, took) = std::thread::scope(|scope| {
        let run = |mut session: Box<dyn InferenceSession + Send>| {
            let (start, stop) = (&start, &stop);
            move || {
                let (picture, mut outputs) = (canary::picture(spec.shape), Outputs::default());
                // Everybody is warm before the time begins; whoever fails says so at the end.
                let mut ran = run_once(session.as_mut(), spec, &picture, &mut outputs);
                start.wait();
                let mut frames = 0_u64;
                while ran.is_ok() && !stop.load(Ordering::Relaxed) {
                    ran = run_once(session.as_mut(), spec, &picture, &mut outputs);
                    frames += 1;
                }
                ran.map(|()| frames)
            }
        };
        let threads: Vec<_> = sessions.drain(..).map(|session| scope.spawn(run(session))).collect();
        start.wait();
        let started = Instant::now();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let frames = threads.into_iter().map(|thread| thread.join().expect("a measuring thread does not panic"));
        let frames: Result<u64, InferenceError> = frames.sum();
        (frames, started.elapsed())
    });
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 frames")]
    let frames_per_s = frames? as f64 / took.as_secs_f64();
    Ok(LayoutSpeed { layout: layout.clone(), frames_per_s, alone })
}

/// How batches do on one session of all cores.
///
/// # Errors
/// [`InferenceError`].
pub fn batches(runtime: &dyn ModelRuntime, spec: &ModelSpec, layout: &Layout) -> Result<Measured, InferenceError> {
    let mut session = runtime.load(spec, &options(layout))?;
    Measured::of(session.as_mut(), spec, TRIED_FRAMES_MAX, Duration::MAX)
}

/// The largest difference between what two providers answer to the canary: of values up to 1 as it is, relative above.
///
/// # Errors
/// [`InferenceError`].
pub fn difference(
    runtime: &dyn ModelRuntime,
    spec: &ModelSpec,
    (one, other): (&Provider, &Provider),
) -> Result<f32, InferenceError> {
    let answer = |provider: &Provider| {
        let options = SessionOptions { provider: provider.clone(), ..SessionOptions::default() };
        let (picture, mut outputs) = (canary::picture(spec.shape), Outputs::default());
        run_once(runtime.load(spec, &options)?.as_mut(), spec, &picture, &mut outputs)?;
        Ok::<_, InferenceError>(outputs)
    };
    let (one, other) = (answer(one)?, answer(other)?);
    let pairs = one.iter().zip(other.iter()).flat_map(|(a, b)| a.values.iter().zip(b.values));
    Ok(pairs.map(|(a, b)| (a - b).abs() / a.abs().max(1.0)).fold(0.0, f32::max))
}

fn options(layout: &Layout) -> SessionOptions {
    SessionOptions { provider: layout.provider.clone(), intra_threads: layout.threads, ..SessionOptions::default() }
}

/// Median of one frame after another for as long as `time`, at least three.
fn alone(session: &mut dyn InferenceSession, spec: &ModelSpec, time: Duration) -> Result<Duration, InferenceError> {
    let (picture, mut outputs) = (canary::picture(spec.shape), Outputs::default());
    run_once(session, spec, &picture, &mut outputs)?;
    let started = Instant::now();
    let mut times = Vec::new();
    while times.len() < 3 || started.elapsed() < time {
        let frame = Instant::now();
        run_once(session, spec, &picture, &mut outputs)?;
        times.push(frame.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn run_once(
    session: &mut dyn InferenceSession,
    spec: &ModelSpec,
    picture: &[f32],
    outputs: &mut Outputs,
) -> Result<(), InferenceError> {
    session.run_pair(picture, spec.template.is_some().then_some(picture), spec.shape, outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_use_every_core_once() {
        let of = |cores| {
            layouts(&Provider::Cpu, cores)
                .into_iter()
                .map(|layout| (layout.sessions, layout.threads))
                .collect::<Vec<_>>()
        };
        assert_eq!(of(1), [(1, 1)]);
        assert_eq!(of(2), [(2, 1), (1, 2)]);
        assert_eq!(of(3), [(3, 1), (1, 3)]);
        assert_eq!(of(16), [(16, 1), (8, 2), (1, 16)]);
    }
}
