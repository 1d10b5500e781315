//! Holds the tables of an export against the ones that its entries give.
//!
//! What is signed are the tables' digests, and what entries give is hashed as it is rendered: so a table is unpacked once,
//! for its own digest, and is never held in memory. Only to say where a table differs it is unpacked again.

use std::io::Read;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::{
    Problem,
    unpacked::{Unpacked, unreadable},
};
use crate::{
    core::export::{
        DECISIONS_CSV, DECISIONS_DE_CSV, DECISIONS_JSONL,
        table::{self, Dialect, Row},
    },
    types::Sha256Digest,
};

/// The tables, in the order of [`Rows::texts`].
pub(super) const TABLES: [&str; 3] = [DECISIONS_CSV, DECISIONS_DE_CSV, DECISIONS_JSONL];

/// Some rows of every table.
#[derive(Default)]
pub(super) struct Rows {
    csv: Vec<u8>,
    csv_de: Vec<u8>,
    json: Vec<u8>,
}

impl Rows {
    pub(super) fn header() -> Self {
        let mut rows = Self::default();
        table::csv_header(&mut rows.csv, Dialect::Comma);
        table::csv_header(&mut rows.csv_de, Dialect::Semicolon);
        rows
    }

    pub(super) fn push(&mut self, row: &Row<'_>) {
        table::csv_row(&mut self.csv, row, Dialect::Comma);
        table::csv_row(&mut self.csv_de, row, Dialect::Semicolon);
        table::json_row(&mut self.json, row);
    }

    fn texts(&self) -> [&[u8]; 3] {
        [&self.csv, &self.csv_de, &self.json]
    }
}

/// The digests of the tables as they are rendered.
pub(super) struct Digests([Sha256; 3]);

impl Digests {
    pub(super) fn new() -> Self {
        let mut digests = Self(Default::default());
        digests.add(&[&Rows::header()]);
        digests
    }

    /// Adds rows that follow one another, each table on a core of its own.
    pub(super) fn add(&mut self, rows: &[&Rows]) {
        self.0.par_iter_mut().with_max_len(1).enumerate().for_each(|(at, digest)| {
            rows.iter().for_each(|rows| digest.update(rows.texts()[at]));
        });
    }

    /// Whether these are the tables of the export.
    pub(super) fn are_of(self, files: &Unpacked<'_>) -> bool {
        let digests = self.0.map(|digest| Sha256Digest(digest.finalize().into()));
        TABLES.iter().zip(digests).all(|(name, digest)| files.digest(name) == Some(digest))
    }
}

/// The tables of the export, read along with what is rendered to find the first line that differs.
pub(super) struct Tables<'a>(Vec<Table<'a>>);

struct Table<'a> {
    name: &'static str,
    reader: Box<dyn Read + Send + 'a>,
    buffer: Vec<u8>,
    line: u64,
}

impl<'a> Tables<'a> {
    /// Opens the tables behind their header rows.
    pub(super) fn open(files: &'a Unpacked<'_>) -> Result<Self, Problem> {
        let table = |name| Table { name, reader: files.open(name), buffer: Vec::new(), line: 1 };
        let mut tables = Self(TABLES.map(table).into());
        tables.compare(&Rows::header())?;
        Ok(tables)
    }

    pub(super) fn compare(&mut self, rows: &Rows) -> Result<(), Problem> {
        for (table, expected) in self.0.iter_mut().zip(rows.texts()) {
            table.compare(expected)?;
        }
        Ok(())
    }

    pub(super) fn end(mut self) -> Result<(), Problem> {
        self.0.iter_mut().try_for_each(Table::end)
    }
}

impl Table<'_> {
    fn compare(&mut self, expected: &[u8]) -> Result<(), Problem> {
        self.buffer.clear();
        let mut limited = (&mut self.reader).take(expected.len() as u64);
        limited.read_to_end(&mut self.buffer).map_err(|error| unreadable(self.name, &error))?;
        same_text(self.name, &self.buffer, expected).map_err(|problem| match problem {
            Problem::Derived { name, line } => Problem::Derived { name, line: line + self.line - 1 },
            other => other,
        })?;
        self.line += line_breaks(expected);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let mut one = [0];
        match self.reader.read(&mut one).map_err(|error| unreadable(self.name, &error))? {
            0 => Ok(()),
            _ => Err(Problem::Derived { name: self.name, line: self.line }),
        }
    }
}

pub(super) fn same_text(name: &'static str, found: &[u8], expected: &[u8]) -> Result<(), Problem> {
    if found == expected {
        return Ok(());
    }
    let at = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
    Err(Problem::Derived { name, line: 1 + line_breaks(&found[..at]) })
}

fn line_breaks(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
