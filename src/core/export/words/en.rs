//! The sentences in English.

use super::{counts_by_code, missing, not_there, number, plural};
use crate::core::{
    export::{
        Lang,
        verify::{Problem, ReplayFault, Step},
    },
    lineage::tree,
};

pub(super) fn step(step: &Step) -> String {
    match step {
        Step::Container { files, bytes } => {
            format!("ZIP file: {files} files, {} bytes, nothing hidden between or behind them", number(*bytes))
        }
        Step::Checkpoint { origin, size, key, .. } => {
            format!("Checkpoint: log {origin:?} with {} entries, signed by {key}", number(*size))
        }
        Step::Receipt { origin, size, key } => {
            format!("Receipt: a root of the log {origin:?} with {} entries, signed by {key}", number(*size))
        }
        Step::Cosigned { witness, time } => format!("Witness: {witness} cosigned this checkpoint at {time}"),
        Step::Quorum { name, missing } => {
            format!("Policy: the quorum {name:?} is reached{}", not_there(missing, "did not cosign"))
        }
        Step::Handover { index, origin, key } => {
            format!("Handover: entry {index} of {origin} announces {key}, under a key you gave; it is trusted, too")
        }
        Step::Announced { vkey } => {
            format!("Next key: from here on this log's checkpoints are signed by this one, too: {vkey}")
        }
        Step::NotWitnessed { entries } => format!(
            "Not witnessed: {} after this checkpoint; they were not checked",
            plural(*entries, "entry", "entries")
        ),
        Step::Unchecked { keys } => {
            let many = plural(keys.len() as u64, "signature", "signatures");
            format!("Not checked: {many} under the checkpoint by keys that were not given: {}", keys.join(", "))
        }
        Step::Manifest { software } => format!("Manifest: signed by the same key, written by {software}"),
        Step::Digests { files, bytes } => {
            format!(
                "Files: {files} digests equal the manifest's, {} bytes in all, none missing, none added",
                number(*bytes)
            )
        }
        Step::Proof { entries: 1, size, hashes } => {
            format!(
                "Proof: the entry is in the log of {} entries ({hashes} hashes lead to the signed root)",
                number(*size)
            )
        }
        Step::Proof { entries, size, hashes } => format!(
            "Proof: all {} entries are in the log of {} entries ({hashes} hashes lead to the signed root)",
            number(*entries),
            number(*size)
        ),
        Step::Entries { decisions, gaps, gap_frames, other } => format!(
            "Entries: {}, {} for {}, {} of other kinds, all well-formed",
            plural(*decisions, "decision", "decisions"),
            plural(*gaps, "gap", "gaps"),
            plural(*gap_frames, "frame", "frames"),
            number(*other)
        ),
        Step::Decisions { ok, not_ok, not_decidable, .. } => format!(
            "Verdicts: {} OK, {} NOT_OK, {} NOT_DECIDABLE; each follows from its scores, thresholds and reasons",
            number(*ok),
            number(*not_ok),
            number(*not_decidable)
        ),
        Step::Openings { values: 0, .. } => "Private values: none opened".into(),
        Step::Openings { values, .. } => {
            format!("Private values: {} opened, each is the one its entry committed to", number(*values))
        }
        Step::Texts { recipes, calibrations, absent } => {
            let missing = if *absent == 0 { String::new() } else { format!("; {absent} named but not enclosed") };
            let recipes = plural(*recipes as u64, "recipe", "recipes");
            let calibrations = plural(*calibrations as u64, "calibration", "calibrations");
            format!("Texts: {recipes}, {calibrations}, with the digests that entries name{missing}")
        }
        Step::Thresholds { decisions } => format!(
            "Recipes: model, calibration and thresholds of {} decisions are those of the recipe's text",
            number(*decisions)
        ),
        Step::Periods { totals, .. } if totals.periods == 0 => {
            "Completeness: no closed period counts these frames, so nothing here says how many there were".into()
        }
        Step::Periods { totals, recounted, outside } => format!(
            "Completeness: the line closed {} of {}: {} decided, {} noted as gaps, {} it calls lost, {} missing; {}; {}",
            plural(totals.periods, "period", "periods"),
            plural(totals.frames, "frame", "frames"),
            number(totals.decided),
            number(totals.gaps),
            number(totals.lost),
            number(totals.missing),
            match totals.periods - recounted {
                0 => "all recounted from the entries here".into(),
                stated => format!(
                    "{} recounted from the entries here, {} only as the log states, because this is a selection",
                    number(*recounted),
                    number(stated)
                ),
            },
            match outside {
                0 => "every decision here lies in one of them".into(),
                outside => format!("{} here in none of them", plural(*outside, "decision lies", "decisions lie")),
            }
        ),
        Step::Derived { files } => {
            format!("Tables and report: {files} files written again from the entries, byte for byte the same")
        }
        Step::NotDerived { made_by, this } => format!(
            "Tables and report: not compared, because {made_by} wrote them and this is {this}; their digests are signed"
        ),
        Step::Chosen { nonce, asked, size, compared } => format!(
            "Challenge: the nonce {nonce} picks exactly these of {} entries ({} asked for); {}",
            number(*size),
            number(*asked),
            if *compared {
                "it is the nonce you gave"
            } else {
                "compare it with the one you gave, or say --nonce: whoever makes up the nonce picks the entries"
            }
        ),
        Step::LaterCheckpoint { size, key } => format!(
            "Later checkpoint: the same log with {} entries, signed by {key}. Keep this answer and hold it against the next checkpoint you get, with --against: what stands here must stand there",
            number(*size)
        ),
        Step::Replayed { exact, within, differs, not_replayable, eps, largest, size } => {
            let ran = plural(exact + within + differs, "decision", "decisions");
            let largest =
                largest.as_ref().map_or_else(String::new, |largest| format!(", largest difference {largest}"));
            let differ = if *differs == 0 { "none differs".to_owned() } else { format!("{} DIFFER", number(*differs)) };
            let not = match counts_by_code(not_replayable) {
                none if none.is_empty() => none,
                not => format!("; could not be decided again: {not}"),
            };
            format!(
                "Decided again by the plant, noted after the checkpoint and before entry {}: {ran}: {} bit-exact, {} within {eps}, {differ}{largest}{not}",
                number(*size),
                number(*exact),
                number(*within)
            )
        }
        Step::Part { index, kind, verdict: None, time, .. } => {
            let when = time.as_ref().map_or_else(String::new, |time| format!(", written {time}"));
            format!("Entry: {}, {}, no decision of a part{when}", number(*index), name_of_kind(kind))
        }
        Step::Part { index, verdict, time, serial, .. } => {
            let part = serial.as_ref().map(|serial| format!("part {serial:?}, ")).unwrap_or_default();
            let said = verdict.map_or_else(String::new, |verdict| format!("{verdict}, "));
            let when = time.as_ref().map_or_else(String::new, |time| format!(", decided {time}"));
            format!("Part: {part}{said}entry {}{when}", number(*index))
        }
        Step::Tiles { tiles, bundles } => format!(
            "Files: {} bundles of entries and {} tiles of hashes, every one hashed again",
            number(*bundles),
            number(*tiles)
        ),
        Step::Root { root } => format!("Root: all of it leads to the signed root {root}"),
    }
}

/// What an entry that is no decision is about.
fn name_of_kind(kind: &str) -> String {
    match kind {
        "gap" => "a gap".into(),
        "recipe" => "a recipe".into(),
        "access" => "an access".into(),
        "key" => "a key".into(),
        "rotation" => "a change of the log's key".into(),
        "start" => "a start of the service".into(),
        "period_close" => "the close of a period".into(),
        "retention" => "an erasure, deletion or legal hold".into(),
        "replay" => "a replay of decisions".into(),
        other => format!("of the kind {other:?}"),
    }
}

pub(super) fn wrong(problem: &Problem) -> String {
    match problem {
        Problem::NotRecognised { reason } => format!("this is no passport, export or data directory: {reason}"),
        Problem::TooLarge { what, max } => format!("{what} is larger than an export may have it ({max})"),
        Problem::Unreadable { place, reason } => format!("{place} cannot be read: {reason}"),
        Problem::Layout(reason) => format!("the ZIP file's structure is not that of an export: {reason}"),
        Problem::MissingFile { name } => format!("{name} is missing"),
        Problem::ExtraFile { name } => format!("{name} does not belong in an export"),
        Problem::Order { name } => format!("{name} is not in its place"),
        Problem::Checkpoint(error) => format!("checkpoint: {error}"),
        Problem::Policy(quorum) if !quorum.log_is_listed => {
            "the policy lists no log key that signed this checkpoint".into()
        }
        Problem::Policy(quorum) => {
            let missing = not_there(&quorum.missing, "no cosignature by");
            format!("the policy's quorum {:?} is not reached{missing}", quorum.name)
        }
        Problem::Consistency(error) => format!("the consistency proof links the two checkpoints in no way: {error}"),
        Problem::Manifest(error) => format!("manifest: {error}"),
        Problem::CheckpointDiffers => "the manifest speaks of another checkpoint than the one enclosed".into(),
        Problem::Container => "bytes of the ZIP file were changed that belong to no file".into(),
        Problem::Unlisted { name } => format!("the manifest does not list {name} in this place"),
        Problem::Changed { name } => format!("{name} is not the file that was signed"),
        Problem::Form { name, line, reason } => format!("{name}, line {line}: {reason}"),
        Problem::Proof(error) => format!("the proof does not fit the entries: {error}"),
        Problem::Root { size } => {
            format!("the entries do not lead to the signed root of the log with {} entries", number(*size))
        }
        Problem::Entry { index, error } => format!("entry {index} is not well-formed: {error}"),
        Problem::EntryForm { index, reason } => {
            format!("entry {index} is not written in the one way entries are: {reason}")
        }
        Problem::Decision { index, contradiction } => {
            format!("the decision in entry {index} contradicts itself: {contradiction}")
        }
        Problem::Unselected { index } => format!("entry {index} is not what the manifest says was asked for"),
        Problem::Opening { index, field } => {
            format!("the opened {field} of entry {index} is not the one its entry committed to")
        }
        Problem::Text { name } => format!("{name} does not have the digest in its name"),
        Problem::UnnamedText { name } => format!("no decision names {name}"),
        Problem::MissingText { digest } => format!("the text {digest} is neither enclosed nor listed as absent"),
        Problem::Recipe { index, what } => {
            format!("entry {index} was decided with another {what} than its recipe says")
        }
        Problem::Counts => "the counts in the manifest are not those of the entries".into(),
        Problem::Period { index, fault } => format!("the period close in entry {index} cannot be right: {fault}"),
        Problem::Incomplete { first, periods } => {
            let what = missing(first, Lang::En);
            let more = match periods - 1 {
                0 => String::new(),
                more => format!("; and {} more with something missing", plural(more as u64, "period", "periods")),
            };
            format!("period {} of {} is not complete: {what} (entry {}){more}", first.period, first.place, first.index)
        }
        Problem::Derived { name, line } => format!("{name} does not say what the entries say, from line {line} on"),
        Problem::Key => "log.vkey is not the key that signed".into(),
        Problem::Challenge(error) => format!("this is not the answer to its challenge: {error}"),
        Problem::Replay(fault) => match fault {
            ReplayFault::NotLater => "the second checkpoint is not a later one of the same log".into(),
            ReplayFault::Place { index } => {
                format!("entry {index} does not stand between the two checkpoints, or not in its place")
            }
            ReplayFault::Form { index } => format!("entry {index} is no replay, or written in another way"),
            ReplayFault::OtherChallenge { index } => {
                format!("the replay in entry {index} was not made for this challenge")
            }
            ReplayFault::Eps { index } => {
                format!("the replay in entry {index} allows larger differences than a challenge does")
            }
            ReplayFault::Outcome { index } => {
                format!(
                    "what a replay says of entry {index} cannot be, by what that decision says of its image and runtime"
                )
            }
            ReplayFault::Unasked { index } => {
                format!("a replay names entry {index}, which is no picked decision, or was named before")
            }
            ReplayFault::Missing { index } => format!("no replay names the picked decision in entry {index}"),
        },
        Problem::Count { found } => {
            format!("the answer is to a challenge for {found} entries, not for as many as you asked for")
        }
        Problem::NoReplays => {
            "the answer does not say what came out when the picked decisions were decided again".into()
        }
        Problem::Nonce { found } => format!("the answer is to the nonce {found}, not to yours"),
        Problem::Passport(error) => error.to_string(),
        Problem::PassportForm => "the passport says the same in another spelling than it is written with".into(),
        Problem::Receipt(error) => error.to_string(),
        Problem::ReceiptKey { origin } => {
            format!("none of the given keys has signed this receipt of the log {origin:?}")
        }
        Problem::ReceiptSignature { key } => {
            format!("the signature of {key} does not fit: the receipt, the entry beside it, or its place was changed")
        }
        Problem::ReceiptPolicy => "a policy was asked for, and a receipt carries no cosignatures of witnesses".into(),
        Problem::Inclusion(tree::ProofError::Root { .. }) => {
            "the proof does not lead to the signed root: the entry or the proof was changed".into()
        }
        Problem::Inclusion(error) => format!("the proof does not fit the entry: {error}"),
        Problem::MissingTile { path } => format!("{path} is missing"),
        Problem::Tile { path, error } => format!("{path}: {error}"),
        Problem::TileDiffers { path } => format!("{path} does not hold the hashes of the entries below it"),
        Problem::EntryDiffers { index, tile } => {
            format!("entry {index} is not the one whose hash {tile} holds: one of the two was changed")
        }
        Problem::EmptyLog => "the log has no entries yet".into(),
        Problem::Handover => "the handover is genuine, but its entry announces no key of this log".into(),
        Problem::Retired { key } => format!("the checkpoint is signed by {key}, which an entry of this log retired"),
    }
}
