//! From the bytes of a frame to what its recipe says of it: decode, look at the quality, prepare, infer, decide. The same
//! steps decide a frame of the line and a recorded one again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    guard::{CANARY_EVERY, Guarded, OnPoison},
    sight,
};
use crate::{
    core::{
        decide::{Decider, Judged},
        frame::{self, Frame, RawLayout, Scratch},
        preprocess::{Prepared, Preprocessor},
        quality::{self, QualityReport},
    },
    planted,
    ports::{
        inference::{InferenceError, InferenceSession, ModelRuntime, Outputs, SessionOptions},
        recipes::LoadedRecipe,
    },
    types::Blake3Digest,
};

/// A session that one thread uses.
pub(crate) type Observed = Box<dyn InferenceSession + Send>;

/// What one thread needs for one recipe.
pub(crate) struct Lane {
    pub recipe: Arc<LoadedRecipe>,
    pub session: Observed,
    preprocessor: Preprocessor,
    outputs: Outputs,
    decider: Decider,
}

/// What was seen on one frame.
pub(crate) struct Examined<'a> {
    pub frame: Frame<'a>,
    /// BLAKE3 of the canonical pixels.
    pub pixels: Blake3Digest,
    pub quality: QualityReport,
    pub judged: Judged,
}

/// Why a frame has no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExamineError {
    #[error("{0}")]
    BadFrame(String),
    #[error("{0}")]
    InferenceFault(String),
    #[error("its answer would be of no use any more")]
    Late,
}

/// Why a recipe cannot look at frames.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    #[error(transparent)]
    Runtime(#[from] InferenceError),
    #[error("{0}")]
    Recipe(String),
}

/// How long each step took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepTimes {
    pub decode: Duration,
    pub preprocess: Duration,
    pub infer: Duration,
    pub decide: Duration,
}

impl Lane {
    /// A session of `recipe` that has answered the canary. `on_poison` hears when it gives no answers any more.
    pub fn session(
        recipe: &LoadedRecipe,
        runtime: &dyn ModelRuntime,
        options: &SessionOptions,
        on_poison: OnPoison,
    ) -> Result<Observed, LaneError> {
        let spec = recipe.model_spec();
        let session = runtime.load(&spec, options)?;
        let expected = recipe.tried.as_ref().map(|tried| tried.canary);
        Ok(Box::new(Guarded::new(session, &spec, expected, CANARY_EVERY, on_poison)?))
    }

    /// Looks through `session`, after one run on zeros, so that the first frame meets a warm one.
    pub fn of(recipe: Arc<LoadedRecipe>, mut session: Observed) -> Result<Self, LaneError> {
        let (preprocessor, mut decider) = sight::of(&recipe).map_err(LaneError::Recipe)?;
        let mut outputs = Outputs::default();
        sight::warm_up(&recipe, &preprocessor, session.as_mut(), &mut decider, &mut outputs)
            .map_err(LaneError::Recipe)?;
        Ok(Self { recipe, preprocessor, session, outputs, decider })
    }

    /// Decides one frame. Nothing is inferred after `deadline`, also between two tiles.
    pub fn examine<'a>(
        &mut self,
        image: &'a [u8],
        raw: Option<&RawLayout>,
        deadline: Option<Instant>,
        scratch: &'a mut Scratch,
        times: &mut StepTimes,
    ) -> Result<Examined<'a>, ExamineError> {
        let bad_frame = |error: &dyn std::fmt::Display| ExamineError::BadFrame(error.to_string());
        let recipe = &self.recipe.recipe;
        let mut watch = Stopwatch::start();
        let frame = frame::decode(image, raw, &recipe.frame, scratch).map_err(|error| bad_frame(&error))?;
        let pixels = frame.digest();
        times.decode = watch.lap();

        let quality = quality::measure(&frame);
        times.preprocess = watch.lap();
        let fault = |error: &dyn std::fmt::Display| ExamineError::InferenceFault(error.to_string());
        let shape = self.preprocessor.shape();
        for view in self.decider.begin(recipe, (frame.width_px, frame.height_px)) {
            let prepared = self.preprocessor.prepare_view(&frame, view);
            let Prepared { tensor, template } = prepared.map_err(|error| bad_frame(&error))?;
            times.preprocess += watch.lap();
            if deadline.is_some_and(|deadline| watch.last >= deadline) {
                return Err(ExamineError::Late);
            }

            let ran = self.session.run_pair(tensor, template, shape, &mut self.outputs);
            let ran = ran.map_err(|error| error.to_string());
            let ran = if planted::has("inference-error") { Err("a planted error".to_owned()) } else { ran };
            if !planted::has("ok-on-inference-error") {
                ran.map_err(ExamineError::InferenceFault)?;
            }
            times.infer += watch.lap();

            let added = self.decider.add(recipe, self.recipe.calibration.as_ref(), &self.outputs);
            added.map_err(|error| fault(&error))?;
            times.decide += watch.lap();
        }
        let judged = self.decider.judge(recipe, &quality).map_err(|error| fault(&error))?;
        times.decide += watch.lap();
        Ok(Examined { frame, pixels, quality, judged })
    }
}

/// Measures one step after another.
pub(crate) struct Stopwatch {
    pub started: Instant,
    last: Instant,
}

impl Stopwatch {
    pub fn start() -> Self {
        let now = Instant::now();
        Self { started: now, last: now }
    }

    pub fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.last, now))
    }
}
