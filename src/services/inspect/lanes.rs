//! Which recipes a worker can look through: its lanes, and the mailbox through which they change while it works.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Shared,
    batch::{self, Measured, Sharing},
    examine::{Lane, LaneError, Observed},
};
use crate::{ports::recipes::LoadedRecipe, types::RecipeRef};

/// A session of one recipe for every worker, loaded and warm.
pub struct NewLanes {
    pub(super) recipe: RecipeRef,
    pub(super) lanes: Vec<Lane>,
}

/// What changes in one worker's lanes. It looks before each frame.
#[derive(Default)]
pub(super) struct Mailbox {
    changes: Mutex<Vec<Change>>,
    /// Spares the worker the lock: nearly always there is nothing.
    has_changes: AtomicBool,
}

enum Change {
    Add(RecipeRef, Box<Lane>),
    Remove(RecipeRef),
}

impl Mailbox {
    pub fn add(&self, recipe: RecipeRef, lane: Lane) {
        self.push(Change::Add(recipe, Box::new(lane)));
    }

    pub fn remove(&self, recipe: RecipeRef) {
        self.push(Change::Remove(recipe));
    }

    fn push(&self, change: Change) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.push(change);
        self.has_changes.store(true, Ordering::Release);
    }

    fn take(&self) -> Vec<Change> {
        if !self.has_changes.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_changes.store(false, Ordering::Release);
        std::mem::take(&mut *changes)
    }
}

/// The sessions of one worker, by recipe.
#[derive(Default)]
pub(super) struct Lanes(HashMap<RecipeRef, Lane>);

impl Lanes {
    /// Makes the changes in the mailbox. A frame that was admitted before the change finds it made, too, which does no harm:
    /// [`Self::of`] brings back what it needs.
    pub fn follow(&mut self, mailbox: &Mailbox) {
        for change in mailbox.take() {
            match change {
                Change::Add(recipe, lane) => drop(self.0.insert(recipe, *lane)),
                Change::Remove(recipe) => drop(self.0.remove(&recipe)),
            }
        }
    }

    /// The lane of `recipe`. One that is gone, because its recipe was retired while the frame waited or a frame before made this
    /// thread panic, is loaded again.
    ///
    /// # Errors
    /// [`LaneError`] when it does not load.
    pub fn of(
        &mut self,
        recipe: &Arc<LoadedRecipe>,
        load: impl FnOnce(&Arc<LoadedRecipe>) -> Result<Lane, LaneError>,
    ) -> Result<&mut Lane, LaneError> {
        use std::collections::hash_map::Entry;

        match self.0.entry(recipe.recipe.reference()) {
            Entry::Occupied(lane) => Ok(lane.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(load(recipe)?)),
        }
    }

    /// Forgets all: after a panic sessions may be in any state.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl Shared {
    /// A lane of `recipe` for each of `workers` workers, warm.
    pub(super) fn load_lanes(&self, recipe: &Arc<LoadedRecipe>, workers: usize) -> Result<NewLanes, LaneError> {
        let lanes: Result<_, LaneError> = match &self.sharing {
            None => (0..workers).map(|_| Lane::of(Arc::clone(recipe), self.load_session(recipe)?)).collect(),
            Some(sharing) => self
                .share_sessions(recipe, sharing)
                .and_then(|handle| (0..workers).map(|_| Lane::of(Arc::clone(recipe), Box::new(handle()))).collect()),
        };
        Ok(NewLanes { recipe: recipe.recipe.reference(), lanes: lanes? })
    }

    /// The same for one worker that has lost its own.
    pub(super) fn load_lane(&self, recipe: &Arc<LoadedRecipe>) -> Result<Lane, LaneError> {
        let mut lanes = self.load_lanes(recipe, 1)?.lanes;
        Ok(lanes.pop().expect("one lane for one worker"))
    }

    /// Sessions on threads of their own, with the size of batch that pays here.
    fn share_sessions(
        &self,
        recipe: &Arc<LoadedRecipe>,
        sharing: &Sharing,
    ) -> Result<impl Fn() -> batch::Shared + use<>, LaneError> {
        let sessions = (0..sharing.sessions.max(1)).map(|_| self.load_session(recipe));
        let mut sessions: Vec<Observed> = sessions.collect::<Result<_, _>>()?;
        let (name, spec) = (recipe.recipe.reference(), recipe.model_spec());
        let measured = Measured::of(sessions[0].as_mut(), &spec, sharing.frames_max, sharing.budget)?;
        let Measured { frames, sizes, ended } = measured;
        tracing::info!(recipe = %name, sessions = sessions.len(), frames, ?sizes, ended, "frames run together, where that pays here");
        Ok(batch::share(sessions, &spec, frames, &self.on_poison(name)))
    }

    /// One session of `recipe`, which has answered the canary.
    fn load_session(&self, recipe: &Arc<LoadedRecipe>) -> Result<Observed, LaneError> {
        let on_poison = self.on_poison(recipe.recipe.reference());
        let mut options = self.session_options.clone();
        if let Some(tried) = &recipe.tried {
            options.provider = tried.provider.clone();
        }
        Lane::session(recipe, self.runtime.as_ref(), &options, on_poison)
    }
}
