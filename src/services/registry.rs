//! The recipes of a running service and the products they inspect: found, tried, loaded, recorded, then used. The same steps at
//! the start and while frames come in.
//!
//! In order, in [`RegistryService::refresh`]: read what is new in the folder, keep what could be asked for later, try new models in
//! processes of their own, load a session for every worker, append the entries, publish. So a frame is inspected either by what
//! was in use before or by what the log already names, and never waits for a model.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    inspect::{InspectHandle, NewLanes},
    models::{Providers, try_all},
    recipes::RecipeBook,
};
use crate::{
    core::lineage::{
        assignment::{Assignment, AssignmentEvent},
        entry::{ENTRY_VERSION, Entry, RecipeEvent, RecipeEventKind, RecipeKind, RecipeRecord},
    },
    ports::{
        clock::Clock,
        inference::ModelTrial,
        lineage::{Append, AppendError, Appended, LogWriter, PrivateRecord},
        recipes::{ASSIGNMENTS_MAX, AssignmentHistory, LoadedRecipe, ProductPlan, RECIPES_MAX, RecipeShelf, Tried},
    },
    types::{Blake3Digest, EntryIndex, ProductId, RecipeRef, Sha256Digest},
};

/// What the service works with.
pub struct RegistryService {
    pub shelf: Arc<dyn RecipeShelf>,
    pub plan: Arc<dyn ProductPlan>,
    pub writer: Arc<dyn LogWriter>,
    pub clock: Arc<dyn Clock>,
    /// What inspects; unset in a process that takes no frames, where a change waits for the next start.
    pub running: Option<Running>,
    /// One change at a time.
    pub turn: Mutex<()>,
    /// Whether the log does not say yet what serves.
    pub owed: AtomicBool,
}

/// The part of the process that inspects.
pub struct Running {
    pub inspect: InspectHandle,
    pub trial: Arc<dyn ModelTrial>,
    pub providers: Providers,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{0}")]
    Shelf(String),
    #[error("recipe {recipe} cannot serve: {reason}")]
    Unavailable { recipe: RecipeRef, reason: String },
    #[error("there is no recipe {recipe} in the recipe folder; it has {there}")]
    NoRecipe { recipe: RecipeRef, there: String },
    #[error(
        "recipe {0} is in use with other content than its folder has now; a recipe in use does not change: put the new content into a new version"
    )]
    Changed(RecipeRef),
    #[error("product {0} is not configured; add a [[product]] to lineproof.toml, or activate a recipe for it")]
    NoProduct(ProductId),
    #[error("nothing is noted that inspected product {product} before {now}")]
    NothingBefore { product: ProductId, now: RecipeRef },
    #[error("the change is not recorded, so it was not made: {0}")]
    Append(#[from] AppendError),
}

/// What a refresh changed. Everything else serves as before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Recipes that serve now and did not.
    pub activated: Vec<RecipeRef>,
    /// Recipes that are gone from the folder.
    pub retired: Vec<RecipeRef>,
    /// Recipes that cannot serve, with the reason.
    pub refused: Vec<(RecipeRef, String)>,
    /// Products whose recipe changed.
    pub assigned: Vec<Assigned>,
    /// Products that have none any more.
    pub unassigned: Vec<ProductId>,
    /// Entries that say so.
    pub recorded: Vec<EntryIndex>,
}

/// A product whose recipe changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub product: ProductId,
    pub recipe: RecipeRef,
    pub previous: Option<RecipeRef>,
}

/// A recipe as the registry shows it.
#[derive(Clone, Debug)]
pub struct RecipeStatus {
    pub recipe: RecipeRef,
    /// Unset where it cannot be read.
    pub record: Option<RecipeRecord>,
    /// Why it does not serve; unset when it does, or nothing runs that could tell.
    pub reason: Option<String>,
    /// The fingerprint of the key that signed it; unset when it does not serve, or no signature is asked for.
    pub signer: Option<Sha256Digest>,
    /// How it serves; unset when it does not.
    pub tried: Option<Tried>,
    pub products: Vec<ProductId>,
}

impl RegistryService {
    /// Brings the running service to what the folder and the configuration say.
    ///
    /// A recipe that does not load is refused by name and the others serve. A product whose new recipe cannot serve keeps the
    /// one it has; at the start it has none, and its frames are refused with the reason (G11).
    ///
    /// # Errors
    /// [`RegistryError::Shelf`] and [`RegistryError::Append`].
    pub fn refresh(&self) -> Result<Changes, RegistryError> {
        self.refresh_when(Log::Takes)
    }

    /// The first refresh of a process. A log that takes no entries now, on a full disk or after damage, is no reason not to
    /// start: nothing is decided then, and reading goes on.
    ///
    /// # Errors
    /// As [`Self::refresh`].
    pub fn start(&self) -> Result<Changes, RegistryError> {
        let when = if self.writer.refusal().is_some() { Log::TakesNothing } else { Log::Takes };
        if let Err(error) = self.plan.history() {
            tracing::error!(
                error,
                "what inspected products before cannot be read and is put aside: no change can be rolled back"
            );
            self.plan.put_history_aside().map_err(RegistryError::Shelf)?;
        }
        let changes = self.refresh_when(when)?;
        self.owed.store(when == Log::TakesNothing && self.running.is_some(), Ordering::Release);
        Ok(changes)
    }

    /// Records what a start on a full disk could not, as soon as the log takes it.
    ///
    /// Returns whether anything is still owed; a log that will take nothing in this process is owed nothing.
    pub fn settle(&self) -> bool {
        use crate::ports::lineage::AppendError::{Closed, ReadOnly, Stopped};

        if !self.owed.load(Ordering::Acquire) {
            return false;
        }
        match self.writer.refusal() {
            None => {}
            Some(Stopped(_) | ReadOnly(_) | Closed) => return false,
            Some(_) => return true,
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = &self.running else { return false };
        let mut changes = Changes::default();
        let recorded = running.inspect.recipes().ready().try_for_each(|recipe| {
            changes.recorded.extend(self.record_recipe(&recipe, RecipeEventKind::Activated, Log::Takes)?);
            Ok(())
        });
        let recorded = recorded.and_then(|()| self.assign_planned(running, Which::All, Log::Takes, &mut changes));
        if let Err(error) = &recorded {
            tracing::warn!(%error, "what serves is still not recorded");
        }
        self.owed.store(recorded.is_err(), Ordering::Release);
        recorded.is_err()
    }

    /// Has `product` inspected by `recipe` from now on, also after a restart.
    ///
    /// # Errors
    /// [`RegistryError`]; then the configuration is as it was.
    pub fn activate(&self, product: &ProductId, recipe: &RecipeRef) -> Result<Changes, RegistryError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.assign(product, recipe, AssignmentEvent::Assigned)
    }

    /// Takes back the latest change of a product's recipe.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub fn roll_back(&self, product: &ProductId) -> Result<Changes, RegistryError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let planned = self.plan.read().map_err(RegistryError::Shelf)?;
        let now = planned.into_iter().find(|(planned, _)| planned == product);
        let (_, now) = now.ok_or_else(|| RegistryError::NoProduct(product.clone()))?;
        let history = self.plan.history().map_err(RegistryError::Shelf)?;
        // What it replaced: the change itself may not have been taken up yet, and then is not noted.
        let before = history.get(product).and_then(|noted| noted.iter().find(|noted| noted.name != now));
        let before = before.ok_or_else(|| RegistryError::NothingBefore { product: product.clone(), now })?;
        let found = self.known(&before.name)?;
        if found.is_some_and(|digest| digest != before.digest) {
            return Err(RegistryError::Changed(before.name.clone()));
        }
        self.assign(product, &before.name.clone(), AssignmentEvent::RolledBack)
    }

    /// Every recipe in the folder, and every one that serves, by name.
    ///
    /// # Errors
    /// [`RegistryError::Shelf`].
    pub fn list(&self) -> Result<Vec<RecipeStatus>, RegistryError> {
        let shelf = self.shelf.list().map_err(RegistryError::Shelf)?;
        let planned = self.plan.read().map_err(RegistryError::Shelf)?;
        let book = self.running.as_ref().map(|running| running.inspect.recipes());
        let mut statuses: BTreeMap<String, RecipeStatus> = BTreeMap::new();
        let mut status = |recipe: RecipeRef, record, reason, serving: Option<&LoadedRecipe>| {
            let (signer, tried) = (serving.and_then(|it| it.signer), serving.and_then(|it| it.tried.clone()));
            let status = RecipeStatus { products: Vec::new(), record, reason, signer, tried, recipe };
            statuses.insert(status.recipe.as_str().to_owned(), status);
        };
        for recipe in shelf {
            let (record, reason) = match (self.shelf.digest(&recipe), &book) {
                (Ok(digest), None) => (Some(RecipeRecord { digest, name: recipe.clone() }), None),
                (Ok(_), Some(_)) => {
                    (None, Some("is new in the folder; `lineproof model reload` takes it up".to_owned()))
                }
                (Err(reason), _) => (None, Some(reason)),
            };
            status(recipe, record, reason, None);
        }
        if let Some(book) = &book {
            book.ready().for_each(|recipe| {
                status(recipe.recipe.reference(), Some(recipe.record()), None, Some(&recipe));
            });
            book.unavailable().for_each(|(recipe, reason)| status(recipe.clone(), None, Some(reason.to_owned()), None));
        }
        let assigned = match &book {
            Some(book) => book.products().map(|(product, recipe)| (product.clone(), recipe.clone())).collect(),
            None => planned,
        };
        for (product, recipe) in assigned {
            if let Some(status) = statuses.get_mut(recipe.as_str()) {
                status.products.push(product);
            }
        }
        let mut statuses: Vec<_> = statuses.into_values().collect();
        statuses.iter_mut().for_each(|status| status.products.sort());
        Ok(statuses)
    }

    /// The digest of a recipe in use, else of the one in the folder.
    fn known(&self, recipe: &RecipeRef) -> Result<Option<Blake3Digest>, RegistryError> {
        let book = self.running.as_ref().map(|running| running.inspect.recipes());
        if let Some(serving) = book.as_ref().and_then(|book| book.serving(recipe)) {
            return Ok(Some(serving.recipe.digest));
        }
        let there = self.shelf.list().map_err(RegistryError::Shelf)?;
        if !there.contains(recipe) {
            let there = there.iter().map(RecipeRef::as_str).collect::<Vec<_>>().join(", ");
            return Err(RegistryError::NoRecipe { recipe: recipe.clone(), there });
        }
        Ok(self.shelf.digest(recipe).ok())
    }

    fn assign(
        &self,
        product: &ProductId,
        recipe: &RecipeRef,
        event: AssignmentEvent,
    ) -> Result<Changes, RegistryError> {
        self.known(recipe)?;
        let planned = self.plan.read().map_err(RegistryError::Shelf)?;
        let before = planned.into_iter().find(|(planned, _)| planned == product).map(|(_, recipe)| recipe);
        let unavailable = |reason| RegistryError::Unavailable { recipe: recipe.clone(), reason };
        let Some(running) = &self.running else {
            // Nothing loads it here; that it is whole can be said.
            self.shelf.load(recipe).map_err(unavailable)?;
            self.plan.set(product, Some(recipe)).map_err(RegistryError::Shelf)?;
            let assigned = Assigned { product: product.clone(), recipe: recipe.clone(), previous: before };
            return Ok(Changes { assigned: vec![assigned], ..Changes::default() });
        };
        // The recipe serves before anything names it: a model that does not load changes nothing.
        if let Some(refusal) = self.writer.refusal() {
            return Err(refusal.into());
        }
        let mut changes = self.take_up(running, std::slice::from_ref(recipe), Log::Takes)?;
        if let Some((_, reason)) = changes.refused.iter().find(|(refused, _)| refused == recipe) {
            return Err(unavailable(reason.clone()));
        }
        self.plan.set(product, Some(recipe)).map_err(RegistryError::Shelf)?;
        let assigned = self.assign_planned(running, Which::One(product, event), Log::Takes, &mut changes);
        if assigned.is_err() {
            // Best effort: the log refuses, and a restart would otherwise find what was not recorded.
            let _ = self.plan.set(product, before.as_ref());
        }
        assigned?;
        // Versions that are gone from the folder make room.
        let there = self.shelf.list().map_err(RegistryError::Shelf)?;
        self.retire(running, &there, &mut changes)?;
        Ok(changes)
    }

    fn refresh_when(&self, log: Log) -> Result<Changes, RegistryError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = &self.running else { return Ok(Changes::default()) };
        let there = self.shelf.list().map_err(RegistryError::Shelf)?;
        // Those that inspect products first: if there are too many, the line goes on.
        let planned = self.plan.read().map_err(RegistryError::Shelf)?;
        let (mut names, others): (Vec<RecipeRef>, _) =
            there.iter().cloned().partition(|name| planned.iter().any(|(_, recipe)| recipe == name));
        names.extend(others);
        let mut changes = self.take_up(running, &names, log)?;
        self.assign_planned(running, Which::All, log, &mut changes)?;
        self.retire(running, &there, &mut changes)?;
        Ok(changes)
    }

    /// Has those of `names` serve that do not yet.
    fn take_up(&self, running: &Running, names: &[RecipeRef], log: Log) -> Result<Changes, RegistryError> {
        let mut changes = Changes::default();
        let mut book = (*running.inspect.recipes()).clone();
        let mut new = Vec::new();
        for name in names {
            if let Some(serving) = book.serving(name) {
                if self.shelf.digest(name).is_ok_and(|digest| digest != serving.recipe.digest) {
                    changes.refused.push((name.clone(), RegistryError::Changed(name.clone()).to_string()));
                }
                continue;
            }
            if book.ready().count() + new.len() >= RECIPES_MAX {
                let reason = format!(
                    "{RECIPES_MAX} recipes serve already; move old versions out of the recipe folder, then `lineproof model reload`"
                );
                refuse(&mut changes, &mut book, name.clone(), reason);
                continue;
            }
            match self.shelf.load(name).and_then(|loaded| self.shelf.keep(&loaded).map(|()| loaded)) {
                Ok(loaded) => new.push(loaded),
                Err(reason) => refuse(&mut changes, &mut book, name.clone(), reason),
            }
        }
        let tried = match new.as_mut_slice() {
            [] => Vec::new(),
            new => try_all(new, running.trial.as_ref(), running.inspect.session_options(), &running.providers),
        };
        let mut prepared: Vec<NewLanes> = Vec::new();
        for (loaded, tried) in new.into_iter().zip(tried) {
            let (name, loaded) = (loaded.recipe.reference(), Arc::new(loaded));
            let lanes = match tried {
                Ok(()) => running.inspect.prepare(&loaded).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match lanes {
                Ok(lanes) => {
                    changes.recorded.extend(self.record_recipe(&loaded, RecipeEventKind::Activated, log)?);
                    prepared.push(lanes);
                    book.add(loaded);
                    changes.activated.push(name);
                }
                Err(reason) => refuse(&mut changes, &mut book, name, reason),
            }
        }
        running.inspect.publish(book, prepared);
        Ok(changes)
    }

    /// Has products inspected by what the configuration says, where that serves.
    fn assign_planned(
        &self,
        running: &Running,
        which: Which<'_>,
        log: Log,
        changes: &mut Changes,
    ) -> Result<(), RegistryError> {
        let planned = self.plan.read().map_err(RegistryError::Shelf)?;
        let mut history = self.plan.history().map_err(RegistryError::Shelf)?;
        let mut book = (*running.inspect.recipes()).clone();
        let mut noted = false;
        if matches!(which, Which::All) {
            let known: Vec<ProductId> =
                book.products().map(|(product, _)| product.clone()).chain(history.keys().cloned()).collect();
            let is_planned = |product: &ProductId| planned.iter().any(|(planned, _)| planned == product);
            for product in known.into_iter().filter(|product| !is_planned(product)) {
                book.unassign(&product);
                let Some(had) = history.get(&product).and_then(|noted| noted.first()).cloned() else { continue };
                let at = self.clock.now();
                let entry = Assignment::new(AssignmentEvent::Unassigned, product.clone(), had, None, at).encode();
                changes.recorded.extend(self.append(entry, log)?);
                if log == Log::Takes {
                    history.remove(&product);
                    noted = true;
                }
                changes.unassigned.push(product);
            }
        }
        for (product, recipe) in planned {
            let event = match which {
                Which::All => AssignmentEvent::Assigned,
                Which::One(one, event) if *one == product => event,
                Which::One(..) => continue,
            };
            let now = book.products().find(|(known, _)| **known == product).map(|(_, recipe)| recipe.clone());
            let Some(serving) = book.serving(&recipe).map(|serving| serving.record()) else {
                match now {
                    // Its frames are refused with the reason.
                    None => book.assign(product, recipe),
                    Some(now) if changes.refused.iter().all(|(refused, _)| *refused != recipe) => {
                        let reason = format!("it is not in the recipe folder; {product} keeps {now} until a restart");
                        changes.refused.push((recipe, reason));
                    }
                    Some(_) => {}
                }
                continue;
            };
            let before = history.get(&product).and_then(|noted| noted.first()).cloned();
            if before.as_ref() != Some(&serving) {
                let at = self.clock.now();
                let entry = Assignment::new(event, product.clone(), serving.clone(), before.clone(), at).encode();
                changes.recorded.extend(self.append(entry, log)?);
                if log == Log::Takes {
                    note(&mut history, &product, serving, event);
                    noted = true;
                }
                let previous = before.map(|before| before.name);
                changes.assigned.push(Assigned { product: product.clone(), recipe: recipe.clone(), previous });
            }
            book.assign(product, recipe);
        }
        if noted && let Err(error) = self.plan.note(&history) {
            tracing::error!(error, "which recipe was in use before is not noted: it cannot be rolled back to");
        }
        running.inspect.publish(book, Vec::new());
        Ok(())
    }

    /// Takes out of service what is gone from the folder and inspects no product.
    fn retire(&self, running: &Running, there: &[RecipeRef], changes: &mut Changes) -> Result<(), RegistryError> {
        let mut book = (*running.inspect.recipes()).clone();
        let known: Vec<RecipeRef> = {
            let ready = book.ready().map(|recipe| recipe.recipe.reference());
            ready.chain(book.unavailable().map(|(name, _)| name.clone())).collect()
        };
        for name in known.into_iter().filter(|name| !there.contains(name)) {
            if book.products().any(|(_, recipe)| *recipe == name) {
                tracing::warn!(recipe = %name, "is gone from the recipe folder but inspects a product: it serves until a restart");
                continue;
            }
            if let Some(recipe) = book.serving(&name).cloned() {
                changes.recorded.extend(self.record_recipe(&recipe, RecipeEventKind::Retired, Log::Takes)?);
                changes.retired.push(name.clone());
            }
            book.remove(&name);
        }
        running.inspect.publish(book, Vec::new());
        Ok(())
    }

    fn record_recipe(
        &self,
        loaded: &LoadedRecipe,
        event: RecipeEventKind,
        log: Log,
    ) -> Result<Option<EntryIndex>, RegistryError> {
        let (time, clock) = self.clock.now();
        let entry = Entry::Recipe(RecipeEvent {
            calibration: loaded.calibration_digest(),
            clock,
            event,
            kind: RecipeKind::Kind,
            model: loaded.recipe.model.digest,
            recipe: loaded.record(),
            time,
            v: ENTRY_VERSION,
        });
        let bytes = entry.encode().expect("recipe entries are far below the size limit");
        self.append(bytes, log)
    }

    /// Appends and waits.
    fn append(&self, entry: Vec<u8>, log: Log) -> Result<Option<EntryIndex>, RegistryError> {
        if log == Log::TakesNothing {
            return Ok(None);
        }
        if let Some(refusal) = self.writer.refusal() {
            return Err(refusal.into());
        }
        let (said, heard) = std::sync::mpsc::sync_channel(1);
        let append = Append { entry, private: PrivateRecord::default(), frame: None };
        self.writer.submit(append, Box::new(move |outcome| drop(said.send(outcome))));
        match heard.recv().unwrap_or(Err(AppendError::Closed))? {
            Appended::Written(receipt) | Appended::Duplicate(receipt) | Appended::Conflict(receipt) => {
                Ok(Some(receipt.index))
            }
        }
    }
}

/// Whether what changes is recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Log {
    Takes,
    /// It takes no decisions either.
    TakesNothing,
}

/// Whose recipe may change.
#[derive(Clone, Copy)]
enum Which<'a> {
    All,
    One(&'a ProductId, AssignmentEvent),
}

fn refuse(changes: &mut Changes, book: &mut RecipeBook, name: RecipeRef, reason: String) {
    tracing::error!(recipe = %name, reason, "recipe is not served; its frames are refused");
    book.add_unavailable(name.clone(), reason.clone());
    changes.refused.push((name, reason));
}

/// Notes what inspects a product now: a roll-back goes back in the notes, everything else is new.
fn note(history: &mut AssignmentHistory, product: &ProductId, recipe: RecipeRecord, event: AssignmentEvent) {
    let noted = history.entry(product.clone()).or_default();
    let back = noted.iter().position(|noted| *noted == recipe).filter(|_| event == AssignmentEvent::RolledBack);
    match back {
        Some(at) => drop(noted.drain(..at)),
        None => {
            noted.insert(0, recipe);
            noted.truncate(ASSIGNMENTS_MAX);
        }
    }
}
