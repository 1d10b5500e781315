//! One session for several workers, which runs what waits for it together: where a model takes many frames in less time than one
//! after another, as on a GPU.
//!
//! The workers decode and prepare, each one frame, and hand its tensor to the session's thread. That thread takes what waits when it is
//! free, at most as many as pay and as take no longer than the latency budget. So a lone frame never waits for company, and a frame
//! waits for others at most as long as one batch takes. Batches are of one recipe: each recipe has its own session.

use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use super::guard::OnPoison;
use crate::{
    core::{canary, lineage::entry::RuntimeRecord},
    ports::inference::{InferenceError, InferenceSession, ModelSpec, Outputs},
    types::Blake3Digest,
};

/// Most frames that are ever run together.
pub const BATCH_FRAMES_MAX: usize = 64;
/// A batch must spare at least this share of the time its frames take one by one.
const GAIN_MIN: f64 = 0.10;
/// Runs of one size that are timed; the fastest counts, because whatever else runs only slows.
const TIMED_RUNS: usize = 3;
/// How far a score in a batch may be from the same frame's alone, for values up to 1; relative above.
const BATCH_EPS: f32 = 1e-4;

/// How sessions are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Sessions of each recipe.
    pub sessions: usize,
    /// Most frames run together, 1 to [`BATCH_FRAMES_MAX`].
    pub frames_max: usize,
    /// Longest time one batch may take.
    pub budget: Duration,
}

/// What a session does with batches on this machine, measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Frames to run together; 1 where no more pay.
    pub frames: usize,
    /// Every size that was tried with the time it took.
    pub sizes: Vec<(usize, Duration)>,
    /// Why no larger size was tried.
    pub ended: Option<String>,
}

impl Measured {
    /// Times batches of 1, 2, 4, … frames and chooses the size with the least time per frame: within the budget, with
    /// every answer as that of the frame alone, and only if it spares [`GAIN_MIN`].
    ///
    /// The frames differ, in contrast and brightness too: a graph that computes anything over all frames of a batch, such as a
    /// common scale, answers otherwise than for each alone, and copies of one picture would not show it.
    ///
    /// # Errors
    /// [`InferenceError`] of a frame alone.
    pub fn of(
        session: &mut dyn InferenceSession,
        spec: &ModelSpec,
        frames_max: usize,
        budget: Duration,
    ) -> Result<Self, InferenceError> {
        let mut outputs = Outputs::default();
        let mut pictures = pictures(spec, 1);
        let alone = timed(session, spec, &pictures, &mut outputs)?;
        let mut answers = vec![outputs.clone()];
        let mut measured = Self { frames: 1, sizes: vec![(1, alone)], ended: None };
        let mut best = alone.as_secs_f64() * (1.0 - GAIN_MIN);
        let sizes = std::iter::successors(Some(2), |size| Some(size * 2)).take_while(|size| *size <= frames_max);
        for size in sizes {
            pictures = self::pictures(spec, size);
            for picture in &pictures[answers.len()..] {
                run(session, spec, std::slice::from_ref(picture), &mut outputs)?;
                answers.push(outputs.clone());
            }
            let took = match timed(session, spec, &pictures, &mut outputs) {
                Ok(took) => took,
                Err(error) => {
                    measured.ended = Some(format!("it does not run {size} frames together: {error}"));
                    break;
                }
            };
            // The other way round as well: what one frame does to the next need not be what that does to it.
            let mut why = differs(answers.iter(), &outputs, size);
            if why.is_none() {
                pictures.reverse();
                why = match run(session, spec, &pictures, &mut outputs) {
                    Ok(()) => differs(answers.iter().rev(), &outputs, size),
                    Err(error) => Some(error.to_string()),
                };
            }
            if let Some(why) = why {
                measured.ended = Some(format!("{size} frames together: {why}"));
                // Sizes before this one may only have been too small to show it.
                measured.frames = 1;
                break;
            }
            measured.sizes.push((size, took));
            if took > budget {
                measured.ended = Some(format!("{size} frames together take longer than the latency budget"));
                break;
            }
            let per_frame = took.as_secs_f64() / size as f64;
            if per_frame < best {
                best = per_frame;
                measured.frames = size;
            }
        }
        Ok(measured)
    }
}

/// What the pictures of a batch are multiplied by, and what is added: no two neighbours are alike in scale or mean.
const CONTRASTS: [(f32, f32); 8] =
    [(1.0, 0.0), (-1.0, 0.0), (0.0, 0.0), (10.0, 0.0), (0.1, 0.0), (1.0, 3.0), (-3.0, -3.0), (0.01, 1.0)];

/// Pictures that differ: the canary, moved along and in other contrasts.
fn pictures(spec: &ModelSpec, frames: usize) -> Vec<Vec<f32>> {
    let canary = canary::picture(spec.shape);
    let picture = |number: usize| {
        let (gain, offset) = CONTRASTS[number % CONTRASTS.len()];
        let mut picture = canary.clone();
        // By a prime, so that no two are the same moved by a row.
        let moved = (number * 7919) % picture.len().max(1);
        picture.rotate_left(moved);
        picture.iter_mut().for_each(|value| *value = *value * gain + offset);
        picture
    };
    (0..frames).map(picture).collect()
}

fn timed(
    session: &mut dyn InferenceSession,
    spec: &ModelSpec,
    pictures: &[Vec<f32>],
    outputs: &mut Outputs,
) -> Result<Duration, InferenceError> {
    // The first run of a size makes its buffers.
    run(session, spec, pictures, outputs)?;
    let mut fastest = Duration::MAX;
    for _ in 0..TIMED_RUNS {
        let started = Instant::now();
        run(session, spec, pictures, outputs)?;
        fastest = fastest.min(started.elapsed());
    }
    Ok(fastest)
}

fn run(
    session: &mut dyn InferenceSession,
    spec: &ModelSpec,
    pictures: &[Vec<f32>],
    outputs: &mut Outputs,
) -> Result<(), InferenceError> {
    let together = pictures.concat();
    let second = spec.template.is_some().then_some(together.as_slice());
    session.run_pair(&together, second, with_frames(spec.shape, pictures.len()), outputs)
}

fn with_frames([_, channels, height, width]: [usize; 4], frames: usize) -> [usize; 4] {
    [frames, channels, height, width]
}

/// Why the answers to a batch are not those to each frame `alone`.
fn differs<'a>(alone: impl Iterator<Item = &'a Outputs>, together: &Outputs, frames: usize) -> Option<String> {
    let mut one = Outputs::default();
    for (frame, alone) in alone.take(frames).enumerate() {
        if let Err(why) = row(together, frame, frames, &mut one) {
            return Some(why);
        }
        for (alone, found) in alone.iter().zip(one.iter()) {
            if alone.shape != found.shape {
                return Some(format!(
                    "output {} has shape {:?} for each, {:?} alone",
                    alone.name, found.shape, alone.shape
                ));
            }
            let is_near =
                |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a - b).abs() <= BATCH_EPS * a.abs().max(1.0);
            if !alone.values.iter().zip(found.values).all(is_near) {
                return Some(format!("output {} is another than for one frame alone", alone.name));
            }
        }
    }
    None
}

/// The outputs of one frame of a batch.
fn row(outputs: &Outputs, frame: usize, frames: usize, one: &mut Outputs) -> Result<(), String> {
    one.clear();
    for output in outputs.iter() {
        if output.shape.first() != Some(&frames) {
            return Err(format!("output {} has shape {:?}, not one row per frame", output.name, output.shape));
        }
        let length = output.values.len() / frames;
        let shape = std::iter::once(1).chain(output.shape[1..].iter().copied());
        one.push(output.name, shape, &output.values[frame * length..(frame + 1) * length]);
    }
    Ok(())
}

/// The sessions of one recipe, and the way to them. Their threads end when the last [`Shared`] is gone.
struct Group {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Nobody can ask any more, or a session's thread panicked: then nobody is answered any more.
    is_closed: bool,
}

/// A frame's tensor on its way to a session.
struct Waiting {
    input: Vec<f32>,
    template: Option<Vec<f32>>,
    outputs: Outputs,
    answer: SyncSender<Answered>,
}

/// Its answer, with the buffers for the next one.
struct Answered {
    result: Result<RuntimeRecord, InferenceError>,
    outputs: Outputs,
    input: Vec<f32>,
    template: Option<Vec<f32>>,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a frame wait for a session. In a closed group it does not: its answer's channel closes.
    fn push(&self, waiting: Waiting) {
        let mut state = self.lock();
        if !state.is_closed {
            state.waiting.push_back(waiting);
            self.wake.notify_one();
        }
    }

    /// What waits, at most `frames`; none when nobody can ask any more.
    fn take(&self, frames: usize) -> Vec<Waiting> {
        let mut state = self.lock();
        while state.waiting.is_empty() && !state.is_closed {
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = state.waiting.len().min(frames);
        state.waiting.drain(..taken).collect()
    }
}

/// Closes the group with the last of its handles, and when a session's thread ends.
struct Closer(Arc<Group>);

impl Drop for Closer {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        // Whoever still waits hears that there is no answer.
        state.waiting.clear();
        drop(state);
        self.0.wake.notify_all();
    }
}

/// Has each of `sessions` run on a thread of its own, at most `frames` frames together.
///
/// Returns a maker of handles, one for each worker.
pub(super) fn share(
    sessions: Vec<Box<dyn InferenceSession + Send>>,
    spec: &ModelSpec,
    frames: usize,
    on_poison: &OnPoison,
) -> impl Fn() -> Shared + use<> {
    let group = Arc::new(Group { state: Mutex::default(), wake: Condvar::new() });
    let runtime = sessions[0].runtime();
    for (number, session) in sessions.into_iter().enumerate() {
        let (group, spec, on_poison) = (Arc::clone(&group), spec.clone(), Arc::clone(on_poison));
        std::thread::Builder::new()
            .name(format!("session-{number}"))
            .spawn(move || {
                let closer = Closer(group);
                let served = AssertUnwindSafe(|| serve(&closer.0, session, &spec, frames));
                if std::panic::catch_unwind(served).is_err() {
                    on_poison("the thread of a shared session ended unexpectedly");
                }
            })
            .expect("the operating system starts a thread");
    }
    let closer = Arc::new(Closer(group));
    let model = spec.digest;
    move || Shared { closer: Arc::clone(&closer), runtime: runtime.clone(), buffers: Buffers::default(), model }
}

/// One session's thread: takes what waits, runs it, answers.
fn serve(group: &Group, mut session: Box<dyn InferenceSession + Send>, spec: &ModelSpec, frames_max: usize) {
    let (mut inputs, mut templates, mut outputs) = (Vec::new(), Vec::new(), Outputs::default());
    loop {
        let mut batch = group.take(frames_max);
        let frames = batch.len();
        if frames == 0 {
            return;
        }
        let shape = with_frames(spec.shape, frames);
        let result = if let [one] = batch.as_mut_slice() {
            // Nothing is copied for one.
            session.run_pair(&one.input, one.template.as_deref(), shape, &mut one.outputs)
        } else {
            inputs.clear();
            templates.clear();
            for one in &batch {
                inputs.extend_from_slice(&one.input);
                templates.extend_from_slice(one.template.as_deref().unwrap_or_default());
            }
            let second = spec.template.is_some().then_some(templates.as_slice());
            session.run_pair(&inputs, second, shape, &mut outputs)
        };
        let runtime = session.runtime();
        for (at, mut one) in batch.into_iter().enumerate() {
            let mut result = result.clone().map(|()| runtime.clone());
            if result.is_ok()
                && frames > 1
                && let Err(reason) = row(&outputs, at, frames, &mut one.outputs)
            {
                result = Err(InferenceError::Run { model: spec.digest, reason });
            }
            let Waiting { input, template, outputs, answer } = one;
            // A worker that is gone needs no answer.
            let _ = answer.send(Answered { result, outputs, input, template });
        }
    }
}

/// One worker's way to the shared sessions of a recipe.
pub(super) struct Shared {
    closer: Arc<Closer>,
    /// What ran the latest frame, with its batch.
    runtime: RuntimeRecord,
    buffers: Buffers,
    model: Blake3Digest,
}

/// Kept from frame to frame.
#[derive(Default)]
struct Buffers {
    input: Vec<f32>,
    template: Vec<f32>,
    outputs: Outputs,
}

impl InferenceSession for Shared {
    fn run_pair(
        &mut self,
        input: &[f32],
        template: Option<&[f32]>,
        shape: [usize; 4],
        outputs: &mut Outputs,
    ) -> Result<(), InferenceError> {
        outputs.clear();
        if shape[0] != 1 || input.len() != shape.iter().product::<usize>() {
            return Err(InferenceError::Input { shape, expected: shape.iter().product(), found: input.len() });
        }
        let Buffers { input: mut copied, template: mut second, outputs: kept } = std::mem::take(&mut self.buffers);
        copied.clear();
        copied.extend_from_slice(input);
        second.clear();
        second.extend_from_slice(template.unwrap_or_default());
        let (answer, answered) = sync_channel(1);
        let template = template.is_some().then_some(second);
        self.closer.0.push(Waiting { input: copied, template, outputs: kept, answer });
        let Ok(Answered { result, outputs: mut filled, input, template }) = answered.recv() else {
            let reason = "the thread of its session ended unexpectedly; restart the service".into();
            return Err(InferenceError::Run { model: self.model, reason });
        };
        std::mem::swap(outputs, &mut filled);
        self.buffers = Buffers { input, template: template.unwrap_or_default(), outputs: filled };
        self.runtime = result.inspect_err(|_| outputs.clear())?;
        Ok(())
    }

    fn runtime(&self) -> RuntimeRecord {
        self.runtime.clone()
    }
}

/// A session that runs every frame as often as it was recorded to have run with others: kernels are chosen by the size of a batch. What
/// else was in it has no part in the answer, which [`Measured`] has seen to.
pub(crate) struct Repeated {
    session: Box<dyn InferenceSession + Send>,
    frames: usize,
    inputs: Vec<f32>,
    templates: Vec<f32>,
    outputs: Outputs,
    model: Blake3Digest,
}

impl Repeated {
    pub fn new(session: Box<dyn InferenceSession + Send>, frames: usize, model: Blake3Digest) -> Self {
        Self { session, frames, inputs: Vec::new(), templates: Vec::new(), outputs: Outputs::default(), model }
    }
}

impl InferenceSession for Repeated {
    fn run_pair(
        &mut self,
        input: &[f32],
        template: Option<&[f32]>,
        shape: [usize; 4],
        outputs: &mut Outputs,
    ) -> Result<(), InferenceError> {
        outputs.clear();
        self.inputs.clear();
        self.templates.clear();
        for _ in 0..self.frames {
            self.inputs.extend_from_slice(input);
            self.templates.extend_from_slice(template.unwrap_or_default());
        }
        let second = template.is_some().then_some(self.templates.as_slice());
        self.session.run_pair(&self.inputs, second, with_frames(shape, self.frames), &mut self.outputs)?;
        row(&self.outputs, 0, self.frames, outputs).map_err(|reason| InferenceError::Run { model: self.model, reason })
    }

    fn runtime(&self) -> RuntimeRecord {
        self.session.runtime()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// Doubles its input; takes as long as `cost` says for a batch, and notes the batches.
    struct Doubling {
        cost: fn(usize) -> Duration,
        batches: Arc<Mutex<Vec<usize>>>,
        /// Waited for in every run of one frame, so that others can gather meanwhile.
        gate: Option<Arc<Barrier>>,
        batch: usize,
        off: f32,
        /// Whether the largest value of the batch is taken from every value, as graphs do that scale by what they see.
        mixes: bool,
    }

    impl InferenceSession for Doubling {
        fn run_pair(
            &mut self,
            input: &[f32],
            _: Option<&[f32]>,
            shape: [usize; 4],
            outputs: &mut Outputs,
        ) -> Result<(), InferenceError> {
            outputs.clear();
            self.batch = shape[0];
            self.batches.lock().unwrap().push(shape[0]);
            if input.contains(&13.0) {
                panic!("a session that dies of a frame");
            }
            if let Some(gate) = self.gate.take() {
                gate.wait();
                gate.wait();
            }
            std::thread::sleep((self.cost)(shape[0]));
            let mut off = if shape[0] > 1 { self.off } else { 0.0 };
            if self.mixes {
                off -= input.iter().copied().fold(f32::MIN, f32::max);
            }
            let doubled: Vec<f32> = input.iter().map(|value| value * 2.0 + off).collect();
            outputs.push("doubled", shape, &doubled);
            Ok(())
        }

        fn runtime(&self) -> RuntimeRecord {
            RuntimeRecord {
                batch: u32::try_from(self.batch).unwrap(),
                cpu: String::new(),
                optimisation: "all".into(),
                provider: "cpu".into(),
                threads: 1,
                version: "1".into(),
            }
        }
    }

    fn doubling(cost: fn(usize) -> Duration) -> Doubling {
        Doubling { cost, batches: Arc::default(), gate: None, batch: 1, off: 0.0, mixes: false }
    }

    fn spec() -> ModelSpec {
        ModelSpec {
            bytes: Arc::from([]),
            digest: Blake3Digest([7; 32]),
            input: "input".into(),
            template: None,
            shape: [1, 1, 1, 2],
            outputs: vec!["doubled".into()],
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn batches_are_used_where_they_pay_within_the_budget_and_answer_as_one_frame_alone() {
        let ms = Duration::from_millis;
        let frames = |mut session: Doubling, budget| Measured::of(&mut session, &spec(), 8, budget).unwrap().frames;
        assert_eq!(frames(doubling(|_| Duration::from_millis(8)), SECOND), 8, "a batch takes no longer than one");
        assert_eq!(frames(doubling(|frames| Duration::from_millis(4 * frames as u64)), SECOND), 1, "nothing is spared");
        let grows = |frames: usize| Duration::from_millis(20 + 2 * frames as u64);
        assert_eq!(frames(doubling(grows), ms(29)), 4, "eight take 36 ms");
        // A frame's answer depends on its neighbours; copies of one picture would not show it.
        let mut mixing = doubling(|_| Duration::from_millis(4));
        mixing.mixes = true;
        let measured = Measured::of(&mut mixing, &spec(), 8, SECOND).unwrap();
        assert_eq!(measured.frames, 1);
        assert!(measured.ended.unwrap().contains("another than for one frame alone"));
        let mut off = doubling(|_| Duration::from_millis(4));
        off.off = 0.01;
        let measured = Measured::of(&mut off, &spec(), 8, SECOND).unwrap();
        assert_eq!(measured.frames, 1);
        assert!(measured.ended.unwrap().contains("another than for one frame alone"));
    }

    #[test]
    fn frames_that_wait_while_one_runs_go_together_and_each_gets_its_own_answer() {
        let gate = Arc::new(Barrier::new(2));
        let mut session = doubling(|_| Duration::ZERO);
        session.gate = Some(Arc::clone(&gate));
        let batches = Arc::clone(&session.batches);
        let handle = share(vec![Box::new(session)], &spec(), 4, &(Arc::new(|_: &str| {}) as OnPoison));
        let answered = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let ask = |value: f32| {
                let (mut handle, answered) = (handle(), &answered);
                scope.spawn(move || {
                    let mut outputs = Outputs::default();
                    handle.run(&[value, -value], [1, 1, 1, 2], &mut outputs).unwrap();
                    let doubled = outputs.get("doubled").unwrap();
                    assert_eq!((doubled.shape, doubled.values), (&[1, 1, 1, 2][..], &[value * 2.0, value * -2.0][..]));
                    answered.fetch_add(1, Ordering::SeqCst);
                    handle.runtime().batch
                })
            };
            // A lone frame runs at once; six come while it runs.
            let first = ask(1.0);
            gate.wait();
            let others: Vec<_> = (2..8).map(|value| ask(value as f32)).collect();
            while handle().closer.0.lock().waiting.len() < 6 {
                std::thread::yield_now();
            }
            gate.wait();
            assert_eq!(first.join().unwrap(), 1);
            let mut sizes: Vec<u32> = others.into_iter().map(|other| other.join().unwrap()).collect();
            sizes.sort_unstable();
            assert_eq!(sizes, [2, 2, 4, 4, 4, 4], "each record has the batch its frame ran in");
        });
        assert_eq!(*batches.lock().unwrap(), [1, 4, 2]);
        assert_eq!(answered.load(Ordering::SeqCst), 7);
    }

    #[test]
    fn a_session_whose_thread_dies_answers_with_an_error_from_then_on() {
        let poisoned = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&poisoned);
        let on_poison: OnPoison = Arc::new(move |_: &str| {
            told.fetch_add(1, Ordering::SeqCst);
        });
        let handle = share(vec![Box::new(doubling(|_| Duration::ZERO))], &spec(), 4, &on_poison);
        let mut handle = handle();
        for value in [13.0, 1.0] {
            let error = handle.run(&[value, 0.0], [1, 1, 1, 2], &mut Outputs::default()).unwrap_err();
            assert!(error.to_string().contains("ended unexpectedly"), "{error}");
        }
        while poisoned.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_repeated_frame_runs_in_a_batch_of_its_copies() {
        let session = doubling(|_| Duration::ZERO);
        let batches = Arc::clone(&session.batches);
        let mut repeated = Repeated::new(Box::new(session), 3, Blake3Digest([7; 32]));
        let mut outputs = Outputs::default();
        repeated.run(&[1.0, 2.0], [1, 1, 1, 2], &mut outputs).unwrap();
        assert_eq!(outputs.get("doubled").unwrap().values, [2.0, 4.0]);
        assert_eq!((batches.lock().unwrap().as_slice(), repeated.runtime().batch), (&[3][..], 3));
    }
}
