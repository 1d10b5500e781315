//! From the bytes of a frame to what its recipe says of it: decode, look at the quality, prepare, infer, decide. The same
//! steps decide a frame of the line and a recorded one again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    core::{
        decide::{self, Judged},
        frame::{self, Frame, RawLayout, Scratch},
        preprocess::Preprocessor,
        quality::{self, QualityReport},
    },
    planted,
    ports::{
        inference::{InferenceError, InferenceSession, ModelRuntime, Outputs, SessionOptions},
        recipes::LoadedRecipe,
    },
    types::Blake3Digest,
};

/// What one thread needs for one recipe.
pub(crate) struct Lane {
    pub recipe: Arc<LoadedRecipe>,
    pub session: Box<dyn InferenceSession + Send>,
    preprocessor: Preprocessor,
    outputs: Outputs,
    decide_scratch: decide::Scratch,
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
    /// Loads a session and runs it once on zeros, so that the first frame meets a warm one.
    pub fn load(
        recipe: Arc<LoadedRecipe>,
        runtime: &dyn ModelRuntime,
        options: &SessionOptions,
    ) -> Result<Self, InferenceError> {
        let mut session = runtime.load(&recipe.model_spec(), options)?;
        let preprocessor = Preprocessor::new(&recipe.recipe);
        let mut outputs = Outputs::default();
        let shape = preprocessor.shape();
        let zeros = vec![0.0; shape.iter().product()];
        session.run(&zeros, shape, &mut outputs)?;
        Ok(Self { recipe, preprocessor, session, outputs, decide_scratch: decide::Scratch::default() })
    }

    /// Decides one frame.
    pub fn examine<'a>(
        &mut self,
        image: &'a [u8],
        raw: Option<&RawLayout>,
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
        let shape = self.preprocessor.shape();
        let tensor = self.preprocessor.prepare(&frame).map_err(|error| bad_frame(&error))?;
        times.preprocess = watch.lap();

        let ran = self.session.run(tensor, shape, &mut self.outputs).map_err(|error| error.to_string());
        let ran = if planted::has("inference-error") { Err("a planted error".to_owned()) } else { ran };
        if !planted::has("ok-on-inference-error") {
            ran.map_err(ExamineError::InferenceFault)?;
        }
        times.infer = watch.lap();

        let judged = decide::decide(
            recipe,
            self.recipe.calibration.as_ref(),
            &self.outputs,
            &quality,
            (frame.width_px, frame.height_px),
            &mut self.decide_scratch,
        )
        .map_err(|error| ExamineError::InferenceFault(error.to_string()))?;
        times.decide = watch.lap();
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
