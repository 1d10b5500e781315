//! How a plant gathers cosignatures: round after round, every witness is asked for the same checkpoint, the newest when
//! the round began. Nothing in the inspection path waits for it, and the log does not know of it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::witnessed::Witnessed;
use crate::{
    core::{
        export::keys::VerifierKey,
        witness::{cosign::Cosigned, request::AddCheckpoint},
    },
    ports::{
        lineage::{LogReader, SignedCheckpoint},
        witness::{Reply, WitnessLink},
    },
};

/// How often the log is asked for a new checkpoint.
const TICK: Duration = Duration::from_millis(100);
/// Shortest time between the beginnings of two rounds.
const ROUND_MIN: Duration = Duration::from_millis(500);
/// A round ends without those who have not answered by then; they join a later one.
const ROUND_MAX: Duration = Duration::from_secs(1);
/// A witness that failed is asked again after this, then twice this, …
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// … up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// The last checkpoint of a service that stops may take so long to be cosigned.
const LAST_ROUND_MAX: Duration = Duration::from_secs(3);

/// A witness that is reached over the network.
pub struct Asked {
    /// The operator's name for it.
    pub name: String,
    pub key: VerifierKey,
    pub link: Arc<dyn WitnessLink>,
}

/// Gathers cosignatures while the service runs.
pub struct Collector {
    reader: Arc<dyn LogReader>,
    /// The log's keys: while it changes from one to the next, both sign.
    log: Vec<VerifierKey>,
    witnesses: Vec<Witness>,
    keys: Vec<VerifierKey>,
    witnessed: Arc<Witnessed>,
    round: Option<Round>,
    /// Whether the last round reached the quorum, once one ended.
    is_live: Option<bool>,
}

struct Witness {
    asked: Asked,
    /// The size it cosigned last, as far as is known.
    known: u64,
    is_busy: bool,
    /// Size of the last checkpoint it answered or failed for.
    done: u64,
    again_at: Option<Instant>,
    backoff: Duration,
    /// What went wrong last, so that it is said once.
    trouble: Option<String>,
}

struct Round {
    cosigned: Cosigned,
    began: Instant,
    /// Lines came in that are not kept yet.
    is_changed: bool,
    has_ended: bool,
}

/// How one witness answered for one checkpoint.
struct Answer {
    witness: usize,
    size: u64,
    known: u64,
    outcome: Result<String, Trouble>,
}

enum Trouble {
    /// It will pass, or not; asked again soon.
    Link(String),
    /// Somebody has to look.
    Refused(String),
}

impl Collector {
    #[must_use]
    pub fn new(
        reader: Arc<dyn LogReader>,
        log: Vec<VerifierKey>,
        asked: Vec<Asked>,
        keys: Vec<VerifierKey>,
        witnessed: Arc<Witnessed>,
    ) -> Self {
        let witness = |asked| Witness {
            asked,
            known: 0,
            is_busy: false,
            done: 0,
            again_at: None,
            backoff: BACKOFF_MIN,
            trouble: None,
        };
        let witnesses = asked.into_iter().map(witness).collect();
        Self { reader, log, witnesses, keys, witnessed, round: None, is_live: None }
    }

    /// Runs until `last` fires, then once more for the last checkpoint, for at most three seconds.
    #[must_use]
    pub fn spawn(self, last: CancellationToken) -> JoinHandle<()> {
        tokio::spawn(self.run(last))
    }

    async fn run(mut self, last: CancellationToken) {
        // Every witness has at most one answer under way.
        let (answers, mut incoming) = mpsc::channel(self.witnesses.len().max(1));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut until = None;
        loop {
            tokio::select! {
                Some(answer) = incoming.recv() => self.take(answer),
                _ = tick.tick() => {}
                () = last.cancelled(), if until.is_none() => until = Some(Instant::now() + LAST_ROUND_MAX),
            }
            self.end_round();
            let newest = match self.reader.checkpoint() {
                Ok(newest) => newest,
                // A log without a readable checkpoint is read-only, which is said elsewhere.
                Err(_) if until.is_some() => return,
                Err(_) => continue,
            };
            self.begin_round(&newest);
            self.ask(&newest, &answers);
            let is_last_done = self.round.as_ref().is_some_and(|round| {
                round.has_ended && !round.is_changed && round.cosigned.facts().size >= newest.size
            });
            if until.is_some_and(|until| is_last_done || Instant::now() >= until) {
                return;
            }
        }
    }

    /// Takes the newest checkpoint for the next round once this one has ended.
    fn begin_round(&mut self, newest: &SignedCheckpoint) {
        if let Some(round) = &self.round {
            let is_same = round.cosigned.facts().size == newest.size;
            if is_same || !round.has_ended || round.began.elapsed() < ROUND_MIN {
                return;
            }
        }
        if newest.size == 0 {
            return;
        }
        match Cosigned::open(&newest.note, &self.log, &self.keys) {
            Ok(cosigned) => {
                self.round = Some(Round { cosigned, began: Instant::now(), is_changed: false, has_ended: false });
            }
            Err(error) => tracing::error!(%error, "the log's own checkpoint does not open; witnesses are not asked"),
        }
    }

    /// Asks every witness that is free and has not answered for this round yet.
    fn ask(&mut self, newest: &SignedCheckpoint, answers: &mpsc::Sender<Answer>) {
        let Some(round) = &self.round else { return };
        let (size, now) = (round.cosigned.facts().size, Instant::now());
        for (number, witness) in self.witnesses.iter_mut().enumerate() {
            let is_due = witness.again_at.is_none_or(|again| again <= now);
            if witness.is_busy || !is_due || witness.done >= size {
                continue;
            }
            witness.is_busy = true;
            let request = Request {
                reader: self.reader.clone(),
                link: witness.asked.link.clone(),
                note: round.cosigned.note(),
                size,
                newest: newest.size,
            };
            let (known, answers) = (witness.known, answers.clone());
            tokio::spawn(async move {
                let (known, outcome) = request.run(known).await;
                // Nobody hears it once the service has ended.
                let _ = answers.send(Answer { witness: number, size, known, outcome }).await;
            });
        }
    }

    fn take(&mut self, answer: Answer) {
        let witness = &mut self.witnesses[answer.witness];
        (witness.is_busy, witness.known) = (false, answer.known);
        let name = &witness.asked.name;
        let key = std::slice::from_ref(&witness.asked.key);
        let outcome = answer.outcome.and_then(|lines| {
            let Some(round) = self.round.as_mut().filter(|round| round.cosigned.facts().size == answer.size) else {
                return Ok(());
            };
            let wrong = |reason: String| Trouble::Refused(format!("its cosignature is not valid: {reason}"));
            round.cosigned.add(&lines, key).map_err(|error| wrong(error.to_string()))?;
            if !round.cosigned.is_cosigned_by(&key[0]) {
                return Err(wrong(format!("it is not by {}; compare the vkey in lineproof.toml", key[0].key_id())));
            }
            round.is_changed = true;
            Ok(())
        });
        match outcome {
            Ok(()) => {
                witness.done = answer.size;
                (witness.again_at, witness.backoff) = (None, BACKOFF_MIN);
                match witness.trouble.take() {
                    Some(_) => tracing::info!(witness = %name, size = answer.size, "the witness cosigns again"),
                    None => tracing::debug!(witness = %name, size = answer.size, "cosigned"),
                }
            }
            Err(trouble) => {
                witness.again_at = Some(Instant::now() + witness.backoff);
                witness.backoff = (witness.backoff * 2).min(BACKOFF_MAX);
                let (Trouble::Link(reason) | Trouble::Refused(reason)) = &trouble;
                if witness.trouble.as_ref() != Some(reason) {
                    match &trouble {
                        Trouble::Link(reason) => {
                            tracing::warn!(witness = %name, reason, "the witness was not reached; verdicts go on");
                        }
                        Trouble::Refused(reason) => {
                            tracing::error!(witness = %name, reason, "the witness refuses this log");
                        }
                    }
                    witness.trouble = Some(reason.clone());
                }
            }
        }
    }

    /// Keeps what the round gathered, and ends it once nobody is waited for.
    fn end_round(&mut self) {
        let Some(round) = &mut self.round else { return };
        let size = round.cosigned.facts().size;
        let is_awaited = |witness: &Witness| witness.done < size && witness.again_at.is_none();
        let has_ended = !self.witnesses.iter().any(is_awaited) || round.began.elapsed() >= ROUND_MAX;
        let mut is_live = None;
        if round.is_changed && has_ended {
            round.is_changed = false;
            // A sync of the disk, which nobody else on this thread should wait for.
            match tokio::task::block_in_place(|| self.witnessed.keep(&round.cosigned)) {
                Ok(is_witnessed) => is_live = Some(is_witnessed),
                Err(error) => {
                    tracing::error!(%error, "cosignatures cannot be kept");
                    is_live = Some(false);
                }
            }
        } else if has_ended && !round.has_ended {
            is_live = Some(false);
        }
        round.has_ended = has_ended;
        let Some(is_live) = is_live else { return };
        self.witnessed.round_ended(is_live);
        if self.is_live != Some(is_live) {
            self.is_live = Some(is_live);
            let by: Vec<String> =
                round.cosigned.cosignatures().iter().map(|cosignature| cosignature.witness.key_id()).collect();
            match is_live {
                true => tracing::info!(size, by = by.join(", "), "the log is witnessed"),
                false => tracing::warn!(size, by = by.join(", "), "too few witnesses cosigned; evidence says so"),
            }
        }
    }
}

/// One witness asked for one checkpoint.
struct Request {
    reader: Arc<dyn LogReader>,
    link: Arc<dyn WitnessLink>,
    note: String,
    size: u64,
    newest: u64,
}

impl Request {
    /// Asks from the size the witness is believed to know, and once more from the one it names. Returns the size it
    /// knows now.
    async fn run(self, mut known: u64) -> (u64, Result<String, Trouble>) {
        for _ in 0..2 {
            // Where it stands is not known yet, or it cosigned more than this round asks: size zero makes it tell.
            let old = if known > self.size { 0 } else { known };
            let body = match self.body(old).await {
                Ok(body) => body,
                Err(reason) => return (known, Err(Trouble::Link(reason))),
            };
            match self.link.add_checkpoint(body).await {
                Ok(Reply::Cosigned(lines)) => return (self.size, Ok(lines)),
                Ok(Reply::OtherSize(size)) if size > self.newest => {
                    let reason = format!(
                        "it has seen {size} entries, and this log has {}: the log was rolled back, or another copy of it runs",
                        self.newest
                    );
                    return (size, Err(Trouble::Refused(reason)));
                }
                Ok(Reply::OtherSize(size)) => known = size,
                Ok(Reply::Refused { status, reason }) => {
                    return (known, Err(Trouble::Refused(format!("{status}: {reason}"))));
                }
                Err(reason) => return (known, Err(Trouble::Link(reason))),
            }
        }
        (known, Err(Trouble::Link(format!("it says twice that it stands elsewhere, last at {known}"))))
    }

    /// The proof is read from the disk, so not on a thread that others wait for.
    async fn body(&self, old: u64) -> Result<String, String> {
        let (reader, note, size) = (self.reader.clone(), self.note.clone(), self.size);
        let make = move || -> Result<String, String> {
            let needs_proof = 0 < old && old < size;
            let proof = if needs_proof { reader.consistency_proof(old, size) } else { Ok(Vec::new()) };
            let proof = proof.map_err(|error| error.to_string())?;
            Ok(AddCheckpoint { old, proof, note }.to_text())
        };
        tokio::task::spawn_blocking(make).await.map_err(|error| error.to_string())?
    }
}
