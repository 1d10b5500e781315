//! Deletes what a class's periods say is over, except what a hold concerns.
//!
//! Images go by packs, private values by entries. Entries, tiles and checkpoints never go: every proof needs them.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::{
    RetentionError, RetentionService,
    book::Hold,
    rules::{self, ClassRule},
    turn,
};
use crate::{
    core::lineage::{
        entry::{Destroyed, Entry, Retention, RetentionEvent},
        index_ranges::{IndexRanges, RANGES_BYTES_MAX},
        private::PrivateField,
    },
    ports::{
        archive::{PackFacts, PackName, RetentionClass},
        index::{EntryKind, Filter, IndexError, Order, PAGE_ENTRIES_MAX},
        lineage::{Intention, ReadError},
    },
    types::{EntryIndex, Instant},
};

/// What a run that finds nothing notes.
const NOTHING: &str = "nothing was due";

/// What is due now, and what is over and stays because of holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub images: Vec<DueImages>,
    pub private: Vec<DuePrivate>,
}

/// Packs of one class whose period is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueImages {
    pub class: RetentionClass,
    pub before: Instant,
    pub rule: String,
    /// Empty if holds keep all of them.
    pub packs: Vec<PackFacts>,
    /// Packs that stay because a hold concerns an image in them.
    pub kept: u64,
}

/// Private values of one class whose period is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuePrivate {
    pub class: RetentionClass,
    pub before: Instant,
    pub rule: String,
    /// Which values are still filed of which entries, ascending; empty if holds keep all of them.
    pub entries: Vec<(EntryIndex, Vec<PrivateField>)>,
    /// Entries that stay because a hold concerns them.
    pub kept: u64,
}

impl RetentionService {
    /// What a run would delete now.
    ///
    /// # Errors
    /// [`RetentionError`].
    pub fn plan(&self) -> Result<Plan, RetentionError> {
        let _turn = turn(&self.turn);
        self.plan_now()
    }

    /// Deletes what is due and returns it, with the entries that record it: at least one, whether anything was due or
    /// not.
    ///
    /// # Errors
    /// [`RetentionError`]; nothing was deleted unless it is [`RetentionError::Unfinished`].
    pub fn run(&self) -> Result<(Plan, Vec<EntryIndex>), RetentionError> {
        let _turn = turn(&self.turn);
        self.finish_earlier()?;
        let plan = self.plan_now()?;
        if let Some(refusal) = self.writer.refusal() {
            return Err(refusal.into());
        }
        let mut entries = Vec::new();
        // What is only kept was kept before and is not noted every day.
        for due in plan.images.iter().filter(|due| !due.packs.is_empty()) {
            entries.push(self.deleted_images(due));
        }
        for due in plan.private.iter().filter(|due| !due.entries.is_empty()) {
            entries.extend(self.deleted_private(due));
        }
        if entries.is_empty() {
            entries.push(self.blank(RetentionEvent::Deleted, NOTHING));
        }
        let encode = |entry: Retention| Entry::Retention(Box::new(entry)).encode();
        let entries = entries.into_iter().map(encode).collect::<Result<_, _>>()?;
        let intention = Intention { size: self.reader.checkpoint()?.size, entries };
        self.eraser.intend(&intention)?;
        let recorded = self.fulfil(&intention)?;
        Ok((plan, recorded))
    }

    /// When the last run was noted.
    ///
    /// # Errors
    /// [`RetentionError`].
    pub fn last_run(&self) -> Result<Option<Instant>, RetentionError> {
        let all = self.book.all()?;
        let runs = all.iter().filter(|(_, entry)| entry.event == RetentionEvent::Deleted);
        Ok(runs.map(|(_, entry)| entry.time).max())
    }

    fn plan_now(&self) -> Result<Plan, RetentionError> {
        self.writer.checkpoint_now()?;
        // The largest time seen: a clock that was set back makes nothing older, nor younger (G15).
        let (now, _) = self.clock.now();
        let holds = self.book.holds()?;
        let mut plan = Plan::default();
        for rule in &self.rules {
            if let Some(days) = rule.images_days {
                plan.images.extend(self.due_images(rule, rules::before(now, days), days, &holds)?);
            }
            if let Some(days) = rule.private_days {
                plan.private.extend(self.due_private(rule, rules::before(now, days), days, &holds)?);
            }
        }
        Ok(plan)
    }

    fn due_images(
        &self,
        rule: &ClassRule,
        before: Instant,
        days: u32,
        holds: &[Hold],
    ) -> Result<Option<DueImages>, RetentionError> {
        let (packs, kept) = self.packs(&rule.class, before, holds)?;
        let due = DueImages { class: rule.class.clone(), before, rule: rule.text_of_images(days), packs, kept };
        Ok((!due.packs.is_empty() || due.kept > 0).then_some(due))
    }

    /// The packs of a class before a time that no hold concerns, and how many a hold does.
    fn packs(
        &self,
        class: &RetentionClass,
        before: Instant,
        holds: &[Hold],
    ) -> Result<(Vec<PackFacts>, u64), RetentionError> {
        let packs = self.images.packs_before(class, &before.day())?;
        if packs.is_empty() {
            return Ok((packs, 0));
        }
        let mut held = BTreeSet::new();
        for hold in holds {
            held.extend(self.held_packs(hold, class, before)?);
        }
        let (kept, due): (Vec<_>, Vec<_>) = packs.into_iter().partition(|pack| held.contains(&pack.name));
        Ok((due, kept.len() as u64))
    }

    /// The packs of a class that have an image of a decision that a hold concerns.
    fn held_packs(
        &self,
        hold: &Hold,
        class: &RetentionClass,
        before: Instant,
    ) -> Result<BTreeSet<PackName>, RetentionError> {
        let value = |field| hold.openings.iter().find(|opening| opening.field == field).map(|opening| &*opening.value);
        let wrong = |error: crate::types::IdError| IndexError::Query(error.to_string());
        let entry = &hold.entry;
        let filter = Filter {
            product: entry.product.clone(),
            line: entry.line.clone(),
            from: entry.from,
            to: Some(entry.to.map_or(before, |to| to.min(before))),
            serial: value(PrivateField::Serial).map(str::parse).transpose().map_err(wrong)?,
            lot: value(PrivateField::Lot).map(str::parse).transpose().map_err(wrong)?,
            ..Filter::default()
        };
        let look = |index: &EntryIndex| -> Result<Option<PackName>, ReadError> {
            let record = self.reader.private(*index)?;
            let Ok(entry) = Entry::parse(&self.reader.entry(*index)?) else { return Ok(None) };
            let location = record.image_location().filter(|location| location.class == *class);
            let covered = location.filter(|_| hold.covers(&entry, &record.openings));
            Ok(covered.map(|location| PackName { day: location.day, number: location.pack }))
        };
        let decisions = self.decisions(&filter, before)?;
        let packs = decisions.par_iter().map(look).collect::<Result<Vec<_>, ReadError>>()?;
        Ok(packs.into_iter().flatten().collect())
    }

    fn due_private(
        &self,
        rule: &ClassRule,
        before: Instant,
        days: u32,
        holds: &[Hold],
    ) -> Result<Option<DuePrivate>, RetentionError> {
        let text = rule.text_of_private(&self.rules, days);
        // Where the last run by this rule got to, if it had to leave nothing behind.
        let all = self.book.all()?;
        let done = all.iter().filter(|(_, entry)| {
            entry.event == RetentionEvent::Deleted
                && entry.rule == text
                && entry.entries.is_some()
                && entry.kept.unwrap_or_default() == 0
        });
        let from = done.filter_map(|(_, entry)| entry.before).max();
        let products = match rule.products.as_slice() {
            [] => vec![None],
            products => products.iter().cloned().map(Some).collect(),
        };
        let mut candidates = Vec::new();
        for product in products {
            let verdicts = rule.verdicts.clone();
            let filter = Filter { product, verdicts, from, to: Some(before), ..Filter::default() };
            candidates.extend(self.decisions(&filter, before)?);
        }
        candidates.sort_unstable();
        let look = |index: &EntryIndex| -> Result<Looked, ReadError> {
            let Ok(entry) = Entry::parse(&self.reader.entry(*index)?) else { return Ok(Looked::Other) };
            let Entry::Decision(decision) = &entry else { return Ok(Looked::Other) };
            if rules::class_of(&self.rules, decision.verdict, &decision.product) != Some(rule) {
                return Ok(Looked::Other);
            }
            let openings = self.reader.private(*index)?.openings;
            if openings.is_empty() {
                return Ok(Looked::Other);
            }
            if holds.iter().any(|hold| hold.covers(&entry, &openings)) {
                return Ok(Looked::Held);
            }
            Ok(Looked::Due(*index, openings.iter().map(|opening| opening.field).collect()))
        };
        let looked = candidates.par_iter().map(look).collect::<Result<Vec<_>, ReadError>>()?;
        let mut due = DuePrivate { class: rule.class.clone(), before, rule: text, entries: Vec::new(), kept: 0 };
        for looked in looked {
            match looked {
                Looked::Due(index, fields) => due.entries.push((index, fields)),
                Looked::Held => due.kept += 1,
                Looked::Other => {}
            }
        }
        Ok((!due.entries.is_empty() || due.kept > 0).then_some(due))
    }

    /// The decisions before a time that match. Refused while the index lacks one of them.
    fn decisions(&self, filter: &Filter, before: Instant) -> Result<Vec<EntryIndex>, RetentionError> {
        let filter = Filter { kinds: vec![EntryKind::Decision], ..filter.clone() };
        let (indexed, size) = (self.index.indexed_to().0, self.reader.checkpoint()?.size);
        if indexed < size {
            let next = Entry::parse(&self.reader.entry(EntryIndex(indexed))?).ok().and_then(|entry| entry.time());
            if next.is_none_or(|time| time < before) {
                return Err(IndexError::Rebuilding { done: indexed, total: size }.into());
            }
        }
        let (mut found, mut next) = (Vec::new(), 0);
        while next < indexed {
            let page = self.index.page(&filter, next..indexed, Order::OldestFirst, PAGE_ENTRIES_MAX)?;
            next = page.last().map_or(indexed, |last| last.0 + 1);
            found.extend(page);
        }
        Ok(found)
    }

    fn deleted_images(&self, due: &DueImages) -> Retention {
        let images = due.packs.iter().map(|pack| pack.images).sum();
        let packs = due.packs.len() as u64;
        Retention {
            before: Some(due.before),
            class: Some(due.class.as_str().to_owned()),
            destroyed: Some(Destroyed { images: Some(images), packs: Some(packs), ..Destroyed::default() }),
            kept: (due.kept > 0).then_some(due.kept),
            ..self.blank(RetentionEvent::Deleted, &due.rule)
        }
    }

    /// As many entries as the ranges need.
    fn deleted_private(&self, due: &DuePrivate) -> Vec<Retention> {
        let all = IndexRanges::of(due.entries.iter().map(|(index, _)| *index)).expect("what is due is some entry");
        let entry = |set: IndexRanges| {
            let mut destroyed = Destroyed::default();
            let here = due.entries.iter().filter(|(index, _)| set.contains(*index));
            here.flat_map(|(_, fields)| fields).for_each(|field| destroyed.add(*field, 1));
            Retention {
                before: Some(due.before),
                class: Some(due.class.as_str().to_owned()),
                destroyed: Some(destroyed),
                entries: Some(set),
                kept: (due.kept > 0).then_some(due.kept),
                ..self.blank(RetentionEvent::Deleted, &due.rule)
            }
        };
        all.split(RANGES_BYTES_MAX).into_iter().map(entry).collect()
    }

    /// Destroys the packs that an entry of an intention speaks of: all of its class and time, except what is held.
    pub(super) fn destroy_images(&self, entry: &Retention) -> Result<(), RetentionError> {
        let (Some(class), Some(before)) = (&entry.class, entry.before) else { return Ok(()) };
        if entry.destroyed.is_none_or(|destroyed| destroyed.packs.is_none()) {
            return Ok(());
        }
        let class = RetentionClass::new(class.clone())
            .map_err(|reason| ReadError::Damaged { place: "erasing".into(), reason })?;
        let (packs, _) = self.packs(&class, before, &self.book.holds()?)?;
        let names: Vec<PackName> = packs.into_iter().map(|pack| pack.name).collect();
        Ok(self.images.destroy(&class, &names)?)
    }
}

/// What a look at a candidate shows.
enum Looked {
    Due(EntryIndex, Vec<PrivateField>),
    Held,
    /// Of another class, or gone already.
    Other,
}
