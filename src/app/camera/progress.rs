//! How far we are: a bar on a terminal, a plain line now and then elsewhere.

use std::{
    cell::Cell,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Plain lines come at most this often.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

pub struct Progress {
    bar: Option<ProgressBar>,
    total: Option<u64>,
    unit: &'static str,
    spoke: Cell<Instant>,
}

impl Progress {
    /// `total` is unknown when a folder is watched.
    pub fn new(total: Option<u64>, unit: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| match total {
            Some(total) => ProgressBar::new(total).with_style(style("{bar:30} {pos}/{len} {msg} {per_sec} {eta}")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {pos} {msg} {per_sec}")),
        });
        let progress = Self { bar, total, unit, spoke: Cell::new(Instant::now()) };
        progress.message(unit);
        progress
    }

    pub fn at(&self, done: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.spoke.get().elapsed() >= PLAIN_EVERY => {
                self.spoke.set(Instant::now());
                match self.total {
                    Some(total) => eprintln!("{done} of {total} {}", self.unit),
                    None => eprintln!("{done} {}", self.unit),
                }
            }
            None => {}
        }
    }

    /// Replaces the words beside the bar.
    pub fn message(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Prints a line of standard output without tearing the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{text}")),
            None => println!("{text}"),
        }
    }

    /// Prints a line of standard error without tearing the bar.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants")
}
