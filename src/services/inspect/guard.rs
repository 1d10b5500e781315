//! A session that is asked the canary, and that gives no answer any more after a wrong one (G12).
//!
//! At load, then before the first frame after every [`CANARY_EVERY`], and before the next frame after any fault, the session runs
//! the canary; its answer must be the one of the model's trial, to the bit. After another answer, or none, the session is poisoned:
//! its frames are refused, also when a later answer would be right again, and nothing runs them elsewhere. A restart
//! loads it anew, through the same door.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    core::{canary, lineage::entry::RuntimeRecord},
    planted,
    ports::inference::{InferenceError, InferenceSession, ModelSpec, Outputs},
    types::Blake3Digest,
};

/// How long a session answers without having been asked the canary.
pub(super) const CANARY_EVERY: Duration = Duration::from_secs(60);

/// Hears once of a poisoned session, with the reason.
pub(crate) type OnPoison = Arc<dyn Fn(&str) + Send + Sync>;

/// A session behind its canary.
pub(super) struct Guarded {
    session: Box<dyn InferenceSession + Send>,
    model: Blake3Digest,
    /// Whether it compares two images: the canary is then both.
    is_pair: bool,
    shape: [usize; 4],
    expected: Blake3Digest,
    outputs: Outputs,
    every: Duration,
    /// When the canary is due; None: at once.
    due: Option<Instant>,
    poisoned: Option<String>,
    on_poison: OnPoison,
}

impl Guarded {
    /// Asks a fresh session the canary. Without an answer to expect, where a model was not tried, its first one counts.
    ///
    /// # Errors
    /// [`InferenceError::Poisoned`], and what the run itself met.
    pub(super) fn new(
        mut session: Box<dyn InferenceSession + Send>,
        spec: &ModelSpec,
        expected: Option<Blake3Digest>,
        every: Duration,
        on_poison: OnPoison,
    ) -> Result<Self, InferenceError> {
        let mut outputs = Outputs::default();
        let (picture, is_pair) = (canary::picture(spec.shape), spec.template.is_some());
        session.run_pair(&picture, is_pair.then_some(&picture), spec.shape, &mut outputs)?;
        let found = canary::answer(&outputs);
        let expected = expected.unwrap_or(found);
        if found != expected {
            return Err(InferenceError::Poisoned { model: spec.digest, reason: other_answer(expected, found) });
        }
        let due = Some(Instant::now() + every);
        let (model, shape) = (spec.digest, spec.shape);
        Ok(Self { session, model, is_pair, shape, expected, outputs, every, due, poisoned: None, on_poison })
    }

    fn ask(&mut self) -> Result<(), InferenceError> {
        let mut picture = canary::picture(self.shape);
        if planted::has("wrong-canary") {
            picture[0] = 100.0;
        }
        let second = self.is_pair.then_some(picture.as_slice());
        let ran = self.session.run_pair(&picture, second, self.shape, &mut self.outputs);
        let found = ran.map(|()| canary::answer(&self.outputs));
        let reason = match found {
            Ok(found) if found == self.expected => {
                self.due = Some(Instant::now() + self.every);
                return Ok(());
            }
            Ok(found) => other_answer(self.expected, found),
            Err(error) => format!("it gave the canary no answer: {error}"),
        };
        (self.on_poison)(&reason);
        self.poisoned = Some(reason.clone());
        Err(InferenceError::Poisoned { model: self.model, reason })
    }
}

fn other_answer(expected: Blake3Digest, found: Blake3Digest) -> String {
    format!("it answered the canary with {found}, not with {expected}")
}

impl InferenceSession for Guarded {
    fn run_pair(
        &mut self,
        input: &[f32],
        template: Option<&[f32]>,
        shape: [usize; 4],
        outputs: &mut Outputs,
    ) -> Result<(), InferenceError> {
        outputs.clear();
        if let Some(reason) = &self.poisoned
            && !planted::has("answer-when-poisoned")
        {
            return Err(InferenceError::Poisoned { model: self.model, reason: reason.clone() });
        }
        let is_due = self.due.is_none_or(|due| due <= Instant::now());
        if self.poisoned.is_none() && (is_due || planted::has("wrong-canary")) {
            self.ask()?;
        }
        let ran = self.session.run_pair(input, template, shape, outputs);
        if ran.is_err() {
            // A picture of its own may be the cause. If it is the provider, the canary tells, before another verdict.
            self.due = None;
        }
        ran
    }

    fn runtime(&self) -> RuntimeRecord {
        self.session.runtime()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// What the next runs do: an answer, or a fault. The last one is repeated.
    struct Scripted(Arc<Mutex<Vec<Option<f32>>>>);

    impl InferenceSession for Scripted {
        fn run_pair(
            &mut self,
            _: &[f32],
            _: Option<&[f32]>,
            _: [usize; 4],
            outputs: &mut Outputs,
        ) -> Result<(), InferenceError> {
            outputs.clear();
            let mut script = self.0.lock().unwrap();
            let next = if script.len() > 1 { script.remove(0) } else { script[0] };
            let fault = InferenceError::Run { model: Blake3Digest([0; 32]), reason: "the provider is gone".into() };
            outputs.push("score", [1], &[next.ok_or(fault)?]);
            Ok(())
        }

        fn runtime(&self) -> RuntimeRecord {
            RuntimeRecord {
                batch: 1,
                cpu: String::new(),
                optimisation: "all".into(),
                provider: "cpu".into(),
                threads: 1,
                version: "1".into(),
            }
        }
    }

    struct Bench {
        script: Arc<Mutex<Vec<Option<f32>>>>,
        poisonings: Arc<AtomicUsize>,
        guarded: Result<Guarded, InferenceError>,
    }

    fn bench(script: &[Option<f32>], expected: Option<f32>, every: Duration) -> Bench {
        let script = Arc::new(Mutex::new(script.to_vec()));
        let poisonings = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&poisonings);
        let spec = ModelSpec {
            bytes: Arc::from([]),
            digest: Blake3Digest([7; 32]),
            input: "input".into(),
            template: None,
            shape: [1, 1, 2, 2],
            outputs: vec!["score".into()],
        };
        let expected = expected.map(|value| {
            let mut outputs = Outputs::default();
            outputs.push("score", [1], &[value]);
            canary::answer(&outputs)
        });
        let on_poison = Arc::new(move |_: &str| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let session = Box::new(Scripted(Arc::clone(&script)));
        Bench { guarded: Guarded::new(session, &spec, expected, every, on_poison), script, poisonings }
    }

    fn run(guarded: &mut Guarded) -> Result<f32, InferenceError> {
        let mut outputs = Outputs::default();
        guarded.run(&[0.0; 4], [1, 1, 2, 2], &mut outputs)?;
        Ok(outputs.get("score").unwrap().values[0])
    }

    const NEVER: Duration = Duration::from_secs(1 << 30);

    #[test]
    fn a_session_that_answers_otherwise_than_in_its_trial_is_not_loaded() {
        let bench = bench(&[Some(1.0)], Some(2.0), NEVER);
        assert!(matches!(bench.guarded, Err(InferenceError::Poisoned { .. })));
    }

    #[test]
    fn a_wrong_canary_poisons_the_session_for_good_and_is_told_once() {
        // Asked before every frame: right at load and before one frame, then one bit off, then right again.
        let off = f32::from_bits(1.0_f32.to_bits() + 1);
        let bench = bench(&[Some(1.0), Some(1.0), Some(5.0), Some(off), Some(1.0)], Some(1.0), Duration::ZERO);
        let mut guarded = bench.guarded.unwrap();
        assert_eq!(run(&mut guarded).unwrap(), 5.0);
        for _ in 0..3 {
            let error = run(&mut guarded).unwrap_err().to_string();
            assert!(error.contains("gives no verdict any more") && error.contains("answered the canary"), "{error}");
        }
        assert_eq!(bench.poisonings.load(Ordering::SeqCst), 1);
        assert_eq!(bench.script.lock().unwrap().len(), 1, "nothing runs on a poisoned session");
    }

    #[test]
    fn after_a_fault_the_canary_decides_whether_it_was_the_picture_or_the_provider() {
        // Load, a frame that fails, the canary, a frame.
        let picture = bench(&[Some(1.0), None, Some(1.0), Some(5.0)], None, NEVER);
        let mut guarded = picture.guarded.unwrap();
        assert!(matches!(run(&mut guarded), Err(InferenceError::Run { .. })));
        assert_eq!(run(&mut guarded).unwrap(), 5.0);
        assert_eq!(picture.poisonings.load(Ordering::SeqCst), 0);

        let provider = bench(&[Some(1.0), None], None, NEVER);
        let mut guarded = provider.guarded.unwrap();
        assert!(matches!(run(&mut guarded), Err(InferenceError::Run { .. })));
        for _ in 0..2 {
            let error = run(&mut guarded).unwrap_err();
            assert!(matches!(&error, InferenceError::Poisoned { .. }), "{error}");
            assert!(error.to_string().contains("the provider is gone"), "{error}");
        }
        assert_eq!(provider.poisonings.load(Ordering::SeqCst), 1);
    }
}
