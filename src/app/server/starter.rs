//! What is recorded before the first frame.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;

use crate::{
    adapters::{keys::Keys, log::RecoveryReport},
    app::{backup, config, keys},
    core::lineage::{
        entry::{Access, AccessEvent, ENTRY_VERSION, Entry, KeyEvent, KeyKind, Start, StartKind},
        rotation::Rotation,
    },
    ports::{
        clock::Clock,
        lineage::{Append, AppendError, Appended, LogWriter, PrivateRecord},
    },
    services::inspect::record,
    types::{EntryIndex, Sha256Digest},
};

/// What the first steps need.
pub(super) struct Starter<'a> {
    pub writer: &'a Arc<dyn LogWriter>,
    pub clock: &'a Arc<dyn Clock>,
}

impl Starter<'_> {
    /// The key on the log's first start, and the start itself.
    pub fn record_start(&self, recovery: &RecoveryReport, vkey: &str) -> anyhow::Result<()> {
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
        Ok(())
    }

    /// The configuration that the service runs with.
    pub fn record_configuration(&self, data_dir: &Path) -> anyhow::Result<()> {
        let bytes = std::fs::read(data_dir.join(config::FILE_NAME))?;
        let object = Some(Sha256Digest::of(&bytes).to_string());
        let access = Access { object, ..Access::new(AccessEvent::Configured, self.clock.now()) };
        self.append(&Entry::Access(access))?;
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
