//! What is loaded and recorded before the first frame.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;

use crate::{
    adapters::{
        keys::Keys,
        log::RecoveryReport,
        model_store::{Kind, ModelStore},
        recipe_files::{self, TextStore},
    },
    app::{backup, config::Config, keys},
    core::lineage::{
        entry::{
            ENTRY_VERSION, Entry, KeyEvent, KeyKind, RecipeEvent, RecipeEventKind, RecipeKind, RecipeRecord, Start,
            StartKind,
        },
        rotation::Rotation,
    },
    ports::{
        clock::Clock,
        lineage::{Append, AppendError, Appended, LogWriter, PrivateRecord},
        recipes::LoadedRecipe,
    },
    services::{inspect::record, recipes::RecipeBook},
    types::EntryIndex,
};

/// What the first steps need.
pub(super) struct Starter<'a> {
    pub config: &'a Config,
    pub writer: &'a Arc<dyn LogWriter>,
    pub clock: &'a Arc<dyn Clock>,
    pub texts: &'a TextStore,
    pub models: &'a ModelStore,
}

impl Starter<'_> {
    pub fn load_recipes(&self) -> anyhow::Result<RecipeBook> {
        let models = &self.config.models;
        let found = recipe_files::load_all(&models.recipes, &models.calibrations).map_err(anyhow::Error::msg)?;
        for (name, loaded) in &found {
            match loaded {
                Ok(loaded) => {
                    self.texts.keep(loaded).with_context(|| format!("keeping the texts of {name}"))?;
                    // Verdicts do not need them: a full disk is no reason not to start.
                    if let Err(error) = self.keep_models(loaded) {
                        tracing::error!(recipe = %name, %error, "the model could not be kept: what it decides cannot be decided again until a start can keep it");
                    }
                }
                Err(reason) => tracing::error!(recipe = %name, reason, "recipe is not served"),
            }
        }
        let products = self.config.products.iter().map(|p| (p.product.clone(), p.recipe.clone())).collect();
        Ok(RecipeBook::new(found, products))
    }

    fn keep_models(&self, loaded: &LoadedRecipe) -> std::io::Result<()> {
        self.models.keep(Kind::Model, loaded.recipe.model.digest, &loaded.model)?;
        match loaded.recipe.template.as_ref().zip(loaded.template.as_ref()) {
            Some((named, bytes)) => self.models.keep(Kind::Template, named.file.digest, bytes),
            None => Ok(()),
        }
    }

    /// The key on the log's first start, the start itself, and the recipes that now serve.
    pub fn record_start(&self, recovery: &RecoveryReport, vkey: &str, book: &RecipeBook) -> anyhow::Result<()> {
        let (time, clock) = self.clock.now();
        if recovery.created {
            let kind = KeyKind::Kind;
            let key = KeyEvent { clock, kind, purpose: "log".into(), time, v: ENTRY_VERSION, vkey: vkey.into() };
            self.append(&Entry::Key(key))?;
        }
        self.append(&Entry::Start(Start {
            clock,
            kind: StartKind::Kind,
            recovered: recovery.recovered,
            software: record::software(),
            time,
            torn_bytes: recovery.torn_bytes,
            v: ENTRY_VERSION,
        }))?;
        for loaded in book.ready() {
            self.append(&Entry::Recipe(RecipeEvent {
                calibration: loaded.calibration_digest(),
                clock,
                event: RecipeEventKind::Activated,
                kind: RecipeKind::Kind,
                model: loaded.recipe.model.digest,
                recipe: RecipeRecord { digest: loaded.recipe.digest, name: loaded.recipe.reference() },
                time,
                v: ENTRY_VERSION,
            }))?;
        }
        Ok(())
    }

    /// That the log was restored, once: entries behind the backup are gone, and nothing else would say so.
    pub fn record_restore(&self, data_dir: &Path) -> anyhow::Result<()> {
        let Some(restored) = backup::restored(data_dir)? else { return Ok(()) };
        let (time, clock) = self.clock.now();
        match self.append_bytes(restored.entry(time, clock))? {
            Some(_) => backup::forget_restored(data_dir),
            None => Ok(()),
        }
    }

    /// That the log's key changes or has changed.
    pub fn record_rotation(&self, data_dir: &Path, keys: &Keys) -> anyhow::Result<()> {
        let (time, clock) = self.clock.now();
        keys::record(data_dir, keys, |event, key| {
            let entry = Rotation::new(event, key, time, clock).encode();
            Ok(self.append_bytes(entry)?.is_some())
        })
    }

    fn append(&self, entry: &Entry) -> anyhow::Result<Option<EntryIndex>> {
        self.append_bytes(entry.encode()?)
    }

    /// Appends and waits. A disk below its reserve is no reason not to start: reading goes on.
    fn append_bytes(&self, entry: Vec<u8>) -> anyhow::Result<Option<EntryIndex>> {
        let (said, heard) = std::sync::mpsc::sync_channel(1);
        let append = Append { entry, private: PrivateRecord::default(), frame: None };
        self.writer.submit(append, Box::new(move |outcome| drop(said.send(outcome))));
        match heard.recv().context("the log dropped an append")? {
            Ok(Appended::Written(receipt) | Appended::Duplicate(receipt) | Appended::Conflict(receipt)) => {
                Ok(Some(receipt.index))
            }
            Err(error @ AppendError::DiskReserve { .. }) => {
                tracing::error!(%error, "no verdicts until the disk has room");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}
