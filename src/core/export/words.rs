//! What a verifier says, in English and German: steps it took, and what is wrong and what that means.

use super::{
    Lang,
    consistency::Contradiction,
    keys::NoteError,
    manifest::ManifestError,
    verify::{Problem, Step},
};
use crate::core::{
    lineage::{
        period::{Incomplete, PeriodFault},
        tree,
    },
    witness::compare::Comparison,
};

/// Missing ranges that a sentence names.
const RANGES_SHOWN: usize = 8;

/// Digits in groups, readable in both languages.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digits.len() > 4 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

fn not_there(missing: &[String], verb: &str) -> String {
    if missing.is_empty() { String::new() } else { format!(" ({verb}: {})", missing.join(", ")) }
}

/// One line that says what a step found right.
#[must_use]
pub fn step(step: &Step, lang: Lang) -> String {
    match lang {
        Lang::En => step_en(step),
        Lang::De => step_de(step),
    }
}

fn step_en(step: &Step) -> String {
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
        Step::Part { index, kind, verdict: None, time, .. } => {
            let when = time.as_ref().map_or_else(String::new, |time| format!(", written {time}"));
            format!("Entry: {}, {}, no decision of a part{when}", number(*index), kind_en(kind))
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

fn step_de(step: &Step) -> String {
    match step {
        Step::Container { files, bytes } => {
            format!("ZIP-Datei: {files} Dateien, {} Byte, nichts dazwischen oder dahinter versteckt", number(*bytes))
        }
        Step::Checkpoint { origin, size, key, .. } => {
            format!("Checkpoint: Protokoll {origin:?} mit {} Einträgen, signiert von {key}", number(*size))
        }
        Step::Receipt { origin, size, key } => {
            format!(
                "Quittung: eine Wurzel des Protokolls {origin:?} mit {} Einträgen, signiert von {key}",
                number(*size)
            )
        }
        Step::Cosigned { witness, time } => format!("Zeuge: {witness} hat diesen Checkpoint um {time} mitsigniert"),
        Step::Quorum { name, missing } => {
            format!("Richtlinie: Das Quorum {name:?} ist erreicht{}", not_there(missing, "hat nicht mitsigniert"))
        }
        Step::NotWitnessed { entries } => format!(
            "Nicht bezeugt: {} nach diesem Checkpoint; sie wurden nicht geprüft",
            plural(*entries, "Eintrag", "Einträge")
        ),
        Step::Unchecked { keys } => {
            let many = plural(keys.len() as u64, "Signatur", "Signaturen");
            format!(
                "Nicht geprüft: {many} unter dem Checkpoint von Schlüsseln, die nicht angegeben wurden: {}",
                keys.join(", ")
            )
        }
        Step::Manifest { software } => {
            format!("Manifest: mit demselben Schlüssel signiert, geschrieben von {software}")
        }
        Step::Digests { files, bytes } => format!(
            "Dateien: {files} Prüfsummen gleich denen im Manifest, zusammen {} Byte, keine fehlt, keine ist dazugekommen",
            number(*bytes)
        ),
        Step::Proof { entries: 1, size, hashes } => format!(
            "Beweis: Der Eintrag steht im Protokoll mit {} Einträgen ({hashes} Hashes führen zur signierten Wurzel)",
            number(*size)
        ),
        Step::Proof { entries, size, hashes } => format!(
            "Beweis: Alle {} Einträge stehen im Protokoll mit {} Einträgen ({hashes} Hashes führen zur signierten Wurzel)",
            number(*entries),
            number(*size)
        ),
        Step::Entries { decisions, gaps, gap_frames, other } => format!(
            "Einträge: {}, {} mit {}, {} anderer Art, alle wohlgeformt",
            plural(*decisions, "Entscheidung", "Entscheidungen"),
            plural(*gaps, "Lücke", "Lücken"),
            plural(*gap_frames, "Bild", "Bildern"),
            number(*other)
        ),
        Step::Decisions { ok, not_ok, not_decidable, .. } => format!(
            "Urteile: {} OK, {} NOT_OK, {} NOT_DECIDABLE; jedes folgt aus Werten, Schwellen und Gründen",
            number(*ok),
            number(*not_ok),
            number(*not_decidable)
        ),
        Step::Openings { values: 0, .. } => "Private Werte: keine offengelegt".into(),
        Step::Openings { values, .. } => {
            format!("Private Werte: {} offengelegt, jeder ist der im Eintrag festgelegte", number(*values))
        }
        Step::Texts { recipes, calibrations, absent } => {
            let missing =
                if *absent == 0 { String::new() } else { format!("; {absent} genannt, aber nicht beigelegt") };
            let recipes = plural(*recipes as u64, "Rezept", "Rezepte");
            let calibrations = plural(*calibrations as u64, "Kalibrierung", "Kalibrierungen");
            format!("Texte: {recipes}, {calibrations}, mit den in Einträgen genannten Digests{missing}")
        }
        Step::Thresholds { decisions } => format!(
            "Rezepte: Modell, Kalibrierung und Schwellen von {} Entscheidungen sind die aus dem Rezepttext",
            number(*decisions)
        ),
        Step::Periods { totals, .. } if totals.periods == 0 => {
            "Vollständigkeit: Kein abgeschlossener Zeitraum zählt diese Bilder; wie viele es gab, sagt hier nichts"
                .into()
        }
        Step::Periods { totals, recounted, outside } => format!(
            "Vollständigkeit: Die Linie hat {} mit {} abgeschlossen: {} entschieden, {} als Lücke vermerkt, {} nennt sie verloren, {} fehlen; {}; {}",
            plural(totals.periods, "Zeitraum", "Zeiträume"),
            plural(totals.frames, "Bild", "Bildern"),
            number(totals.decided),
            number(totals.gaps),
            number(totals.lost),
            number(totals.missing),
            match totals.periods - recounted {
                0 => "alle aus den Einträgen hier nachgezählt".into(),
                stated => format!(
                    "{} aus den Einträgen hier nachgezählt, {} nur nach Angabe des Protokolls, weil dies eine Auswahl ist",
                    number(*recounted),
                    number(stated)
                ),
            },
            match outside {
                0 => "jede Entscheidung hier gehört zu einem davon".into(),
                outside => {
                    format!(
                        "{} hier zu keinem davon",
                        plural(*outside, "Entscheidung gehört", "Entscheidungen gehören")
                    )
                }
            }
        ),
        Step::Derived { files } => {
            format!("Tabellen und Bericht: {files} Dateien aus den Einträgen neu geschrieben, Byte für Byte gleich")
        }
        Step::NotDerived { made_by, this } => format!(
            "Tabellen und Bericht: nicht verglichen, denn {made_by} hat sie geschrieben und dies ist {this}; ihre Prüfsummen sind signiert"
        ),
        Step::Chosen { nonce, asked, size, compared } => format!(
            "Stichprobe: Die Nonce {nonce} wählt genau diese von {} Einträgen ({} angefragt); {}",
            number(*size),
            number(*asked),
            if *compared {
                "es ist die vorgegebene Nonce"
            } else {
                "mit der vorgegebenen vergleichen oder --nonce angeben: Wer die Nonce macht, wählt die Einträge"
            }
        ),
        Step::Part { index, kind, verdict: None, time, .. } => {
            let when = time.as_ref().map_or_else(String::new, |time| format!(", geschrieben {time}"));
            format!("Eintrag: {}, {}, keine Entscheidung über ein Teil{when}", number(*index), kind_de(kind))
        }
        Step::Part { index, verdict, time, serial, .. } => {
            let part = serial.as_ref().map(|serial| format!("Teil {serial:?}, ")).unwrap_or_default();
            let said = verdict.map_or_else(String::new, |verdict| format!("{verdict}, "));
            let when = time.as_ref().map_or_else(String::new, |time| format!(", entschieden {time}"));
            format!("Teil: {part}{said}Eintrag {}{when}", number(*index))
        }
        Step::Tiles { tiles, bundles } => format!(
            "Dateien: {} Bündel mit Einträgen und {} Kacheln mit Hashes, jede neu gerechnet",
            number(*bundles),
            number(*tiles)
        ),
        Step::Root { root } => format!("Wurzel: Alles zusammen führt zur signierten Wurzel {root}"),
    }
}

/// What an entry that is no decision is about.
fn kind_en(kind: &str) -> String {
    match kind {
        "gap" => "a gap".into(),
        "recipe" => "a recipe".into(),
        "access" => "an access".into(),
        "key" => "a key".into(),
        "start" => "a start of the service".into(),
        "period_close" => "the close of a period".into(),
        "retention" => "an erasure, deletion or legal hold".into(),
        other => format!("of the kind {other:?}"),
    }
}

fn kind_de(kind: &str) -> String {
    match kind {
        "gap" => "eine Lücke".into(),
        "recipe" => "ein Rezept".into(),
        "access" => "ein Zugriff".into(),
        "key" => "ein Schlüssel".into(),
        "start" => "ein Start des Dienstes".into(),
        "period_close" => "der Abschluss eines Zeitraums".into(),
        "retention" => "eine Löschung oder Aufbewahrungssperre".into(),
        other => format!("von der Art {other:?}"),
    }
}

/// What comparing two checkpoints shows.
#[must_use]
pub fn comparison(shows: &Comparison, lang: Lang) -> String {
    match shows {
        Comparison::OtherLog => lang.pick(
            "the two are of different logs; there is nothing to compare".into(),
            "die beiden stammen aus verschiedenen Protokollen; es gibt nichts zu vergleichen".into(),
        ),
        Comparison::Same => lang.pick(
            "both show the same log: as many entries, the same root".into(),
            "beide zeigen dasselbe Protokoll: gleich viele Einträge, dieselbe Wurzel".into(),
        ),
        Comparison::Grown { from, to } => lang.pick(
            format!("the log grew from {} to {} entries and kept its beginning", number(*from), number(*to)),
            format!("das Protokoll wuchs von {} auf {} Einträge und behielt seinen Anfang", number(*from), number(*to)),
        ),
        Comparison::Unlinked { from, to } => lang.pick(
            format!(
                "one shows {} entries, the other {}, and nothing here links the two. Compare with the plant's data directory, with a request file made by `lineproof witness request --old {from}`, or let a witness compare for you",
                number(*from),
                number(*to)
            ),
            format!(
                "einer zeigt {} Einträge, der andere {}, und nichts hier verbindet die beiden. Mit dem Datenverzeichnis des Werks vergleichen, mit einer Anfragedatei aus `lineproof witness request --old {from}`, oder einen Zeugen vergleichen lassen",
                number(*from),
                number(*to)
            ),
        ),
        Comparison::Fork { at, .. } => lang.pick(
            format!("FORK: the log's key signed two histories; they part within the first {} entries", number(*at)),
            format!(
                "GABELUNG: Der Schlüssel des Protokolls hat zwei Geschichten signiert; sie trennen sich innerhalb der ersten {} Einträge",
                number(*at)
            ),
        ),
    }
}

/// What a fork means for whoever found it.
#[must_use]
pub fn fork_meaning(lang: Lang) -> &'static str {
    lang.pick(
        "Both checkpoints below are signed by the log's key and cannot be of one log. Keep both files unchanged: together they are the evidence. Rely on neither until the plant has explained it.",
        "Beide Checkpoints unten sind mit dem Schlüssel des Protokolls signiert und können nicht aus einem Protokoll stammen. Beide Dateien unverändert aufbewahren: Zusammen sind sie der Beweis. Sich auf keine verlassen, bis das Werk das erklärt hat.",
    )
}

/// What is wrong, and where.
#[must_use]
pub fn wrong(problem: &Problem, lang: Lang) -> String {
    match lang {
        Lang::En => wrong_en(problem),
        Lang::De => wrong_de(problem),
    }
}

fn wrong_en(problem: &Problem) -> String {
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
    }
}

fn wrong_de(problem: &Problem) -> String {
    match problem {
        Problem::NotRecognised { reason } => {
            format!("das ist weder Passport noch Export noch Datenverzeichnis: {reason}")
        }
        Problem::TooLarge { what, max } => format!("{what} ist größer, als ein Export es erlaubt ({max})"),
        Problem::Unreadable { place, reason } => format!("{place} ist nicht lesbar: {reason}"),
        Problem::Layout(reason) => format!("der Aufbau der ZIP-Datei ist nicht der eines Exports: {reason}"),
        Problem::MissingFile { name } => format!("{name} fehlt"),
        Problem::ExtraFile { name } => format!("{name} gehört nicht in einen Export"),
        Problem::Order { name } => format!("{name} steht nicht an seinem Platz"),
        Problem::Checkpoint(error) => format!("Checkpoint: {}", note_de(error)),
        Problem::Policy(quorum) if !quorum.log_is_listed => {
            "die Richtlinie nennt keinen Protokollschlüssel, der diesen Checkpoint signiert hat".into()
        }
        Problem::Policy(quorum) => {
            let missing = not_there(&quorum.missing, "es fehlt die Signatur von");
            format!("das Quorum {:?} der Richtlinie ist nicht erreicht{missing}", quorum.name)
        }
        Problem::Consistency(error) => {
            format!("der Konsistenzbeweis verbindet die beiden Checkpoints nicht ({error})")
        }
        Problem::Manifest(error) => format!("Manifest: {}", manifest_de(error)),
        Problem::CheckpointDiffers => "das Manifest spricht von einem anderen Checkpoint als dem beigelegten".into(),
        Problem::Container => "in der ZIP-Datei wurden Bytes geändert, die zu keiner Datei gehören".into(),
        Problem::Unlisted { name } => format!("das Manifest nennt {name} nicht an dieser Stelle"),
        Problem::Changed { name } => format!("{name} ist nicht die Datei, die signiert wurde"),
        Problem::Form { name, line, reason } => format!("{name}, Zeile {line}: {reason}"),
        Problem::Proof(error) => format!("der Beweis passt nicht zu den Einträgen: {error}"),
        Problem::Root { size } => {
            format!("die Einträge führen nicht zur signierten Wurzel des Protokolls mit {} Einträgen", number(*size))
        }
        Problem::Entry { index, error } => format!("Eintrag {index} ist nicht wohlgeformt: {error}"),
        Problem::EntryForm { index, reason } => {
            format!("Eintrag {index} ist nicht so geschrieben, wie Einträge es sind: {reason}")
        }
        Problem::Decision { index, contradiction } => {
            format!("die Entscheidung in Eintrag {index} widerspricht sich: {}", contradiction_de(contradiction))
        }
        Problem::Unselected { index } => format!("Eintrag {index} entspricht nicht der im Manifest genannten Anfrage"),
        Problem::Opening { index, field } => {
            format!("der offengelegte Wert „{field}“ von Eintrag {index} ist nicht der im Eintrag festgelegte")
        }
        Problem::Text { name } => format!("{name} hat nicht den Digest, der im Namen steht"),
        Problem::UnnamedText { name } => format!("keine Entscheidung nennt {name}"),
        Problem::MissingText { digest } => format!("der Text {digest} ist weder beigelegt noch als fehlend aufgeführt"),
        Problem::Recipe { index, what } => {
            let what = match *what {
                "name" => "einem anderen Namen",
                "model" => "einem anderen Modell",
                "calibration" => "einer anderen Kalibrierung",
                "comparator" => "einem anderen Vergleich",
                _ => "anderen Schwellen",
            };
            format!("Eintrag {index} wurde mit {what} entschieden, als sein Rezept sagt")
        }
        Problem::Counts => "die Zahlen im Manifest sind nicht die der Einträge".into(),
        Problem::Period { index, fault } => {
            format!("der Abschluss in Eintrag {index} kann nicht stimmen: {}", fault_de(*fault))
        }
        Problem::Incomplete { first, periods } => {
            let what = missing(first, Lang::De);
            let more = match periods - 1 {
                0 => String::new(),
                more => {
                    format!("; in {} fehlt auch etwas", plural(more as u64, "weiteren Zeitraum", "weiteren Zeiträumen"))
                }
            };
            let Incomplete { period, place, index, .. } = &**first;
            format!("Zeitraum {period} von {place} ist nicht vollständig: {what} (Eintrag {index}){more}")
        }
        Problem::Derived { name, line } => format!("{name} sagt ab Zeile {line} etwas anderes als die Einträge"),
        Problem::Key => "log.vkey ist nicht der Schlüssel, mit dem signiert wurde".into(),
        Problem::Challenge(error) => format!("das ist nicht die Antwort auf ihre Stichprobe: {error}"),
        Problem::Nonce { found } => format!("geantwortet ist auf die Nonce {found}, nicht auf Ihre"),
        Problem::Passport(error) => format!("im Passport stimmt etwas nicht: {error}"),
        Problem::PassportForm => "der Passport sagt dasselbe in einer anderen Schreibweise als der festgelegten".into(),
        Problem::Receipt(error) => format!("mit der Quittung stimmt etwas nicht: {error}"),
        Problem::ReceiptKey { origin } => {
            format!("keiner der angegebenen Schlüssel hat diese Quittung des Protokolls {origin:?} signiert")
        }
        Problem::ReceiptSignature { key } => {
            format!("die Signatur von {key} passt nicht: Quittung, Eintrag daneben oder sein Platz wurde geändert")
        }
        Problem::ReceiptPolicy => {
            "eine Richtlinie wurde verlangt, und eine Quittung trägt keine Signaturen von Zeugen".into()
        }
        Problem::Inclusion(tree::ProofError::Root { .. }) => {
            "der Beweis führt nicht zur signierten Wurzel: Eintrag oder Beweis wurde geändert".into()
        }
        Problem::Inclusion(error) => format!("der Beweis passt nicht zum Eintrag ({error})"),
        Problem::MissingTile { path } => format!("{path} fehlt"),
        Problem::Tile { path, error } => format!("{path}: {error}"),
        Problem::TileDiffers { path } => format!("{path} enthält nicht die Hashes der Einträge darunter"),
        Problem::EntryDiffers { index, tile } => {
            format!("Eintrag {index} ist nicht der, dessen Hash in {tile} steht: Eins von beiden wurde geändert")
        }
        Problem::EmptyLog => "das Protokoll hat noch keine Einträge".into(),
    }
}

/// What is missing in a period.
#[must_use]
pub fn missing(incomplete: &Incomplete, lang: Lang) -> String {
    let Incomplete { missing, missing_frames, frames_short, .. } = incomplete;
    let mut said = Vec::new();
    if *missing_frames > 0 {
        let shown: Vec<String> = missing.iter().take(RANGES_SHOWN).map(ToString::to_string).collect();
        let cut = if missing.len() > RANGES_SHOWN { ", …" } else { "" };
        let shown = format!("{}{cut}", shown.join(", "));
        said.push(lang.pick(
            format!(
                "{} announced by the line ({}) with no decision, no noted gap and no word from the line",
                plural(*missing_frames, "frame", "frames"),
                format_args!("counter {shown}")
            ),
            format!(
                "zu {}, von der Linie gemeldet (Zähler {shown}), gibt es weder Entscheidung noch vermerkte Lücke noch eine Erklärung der Linie",
                plural(*missing_frames, "Bild", "Bildern")
            ),
        ));
    }
    if *frames_short > 0 {
        said.push(lang.pick(
            format!(
                "the line counted parts for {} more than its camera took",
                plural(*frames_short, "frame", "frames")
            ),
            format!(
                "die Linie zählte Teile für {} mehr, als die Kamera aufnahm",
                plural(*frames_short, "Bild", "Bilder")
            ),
        ));
    }
    said.join("; ")
}

fn fault_de(fault: PeriodFault) -> &'static str {
    match fault {
        PeriodFault::Range => "Zähler, Listen oder Zeiten laufen rückwärts oder liegen außerhalb des Gemeldeten",
        PeriodFault::Parts => "die Zahl der Teile widerspricht sich",
        PeriodFault::Sum => "Entschiedene, vermerkte, verlorene und fehlende Bilder ergeben nicht die gemeldeten",
        PeriodFault::Window => "er sagt nicht richtig, welche Einträge er gezählt hat",
        PeriodFault::Chain => "er schließt nicht an den Zeitraum davor an",
        PeriodFault::Correction => "er passt nicht zu dem Abschluss, den er berichtigt",
        PeriodFault::Counts => "die Einträge dieser Kamera ergeben andere Zahlen",
    }
}

fn note_de(error: &NoteError) -> String {
    match error {
        NoteError::NoSignature { origin } => {
            format!("keiner der angegebenen Schlüssel hat den Checkpoint des Protokolls {origin:?} signiert")
        }
        NoteError::Signature { key } => format!("die Signatur von {key} unter dem Checkpoint stimmt nicht"),
        NoteError::Form(_) | NoteError::Checkpoint(_) => format!("er ist keine signierte Notiz ({error})"),
    }
}

fn manifest_de(error: &ManifestError) -> String {
    match error {
        ManifestError::Signature => "die Signatur stimmt nicht".into(),
        ManifestError::Key { found, expected } => {
            format!("es ist mit {found} signiert, der Checkpoint mit {expected}")
        }
        ManifestError::Newer { .. } => {
            "es wurde von einer neueren Ausgabe geschrieben; bitte ein neueres lineproof nehmen".into()
        }
        ManifestError::TooLong | ManifestError::Json(_) | ManifestError::Type { .. } | ManifestError::Form => {
            format!("es hat nicht die vorgeschriebene Form ({error})")
        }
    }
}

fn contradiction_de(contradiction: &Contradiction) -> String {
    match contradiction {
        Contradiction::Comparator(found) => format!("der Vergleich {found:?} ist weder `>=` noch `>`"),
        Contradiction::Thresholds(label) => {
            format!("bei {label:?} fehlt eine Schwelle, oder die Prüfschwelle liegt über der Ausschussschwelle")
        }
        Contradiction::Score { found, largest } => {
            format!("der entscheidende Wert ist {found}, der größte Fehlerwert {largest}")
        }
        Contradiction::Verdict { expected, found } => {
            format!("aus Werten und Schwellen folgt {expected}, dort steht {found}, und kein Grund erklärt das")
        }
        Contradiction::NoDefect => "kein Label ist ein Fehler".into(),
        Contradiction::Reason(reason) => format!("der Grund {reason:?} folgt nicht aus Werten und Schwellen"),
    }
}

/// What a problem means for the reader, and what to do next.
#[must_use]
pub fn meaning(problem: &Problem, lang: Lang) -> &'static str {
    let (en, de) = match problem {
        Problem::ReceiptPolicy => (
            "Check the passport (.tlog-proof) of the same part instead; it carries them.",
            "Stattdessen den Passport (.tlog-proof) desselben Teils prüfen; er trägt sie.",
        ),
        Problem::Checkpoint(NoteError::NoSignature { .. })
        | Problem::ReceiptKey { .. }
        | Problem::Manifest(ManifestError::Key { .. }) => (
            "Either this comes from another plant or log, or the key is the wrong one, or it was forged. Compare the key with the plant's, obtained by another way.",
            "Entweder stammt dies aus einem anderen Werk oder Protokoll, oder es ist der falsche Schlüssel, oder es ist gefälscht. Den Schlüssel auf anderem Weg mit dem des Werks vergleichen.",
        ),
        Problem::Policy(_) => (
            "The plant's log signed this, but not enough witnesses vouch that it shows everybody the same history. If it is new, ask for it again in a minute; if it stays so, ask the plant and the witnesses why.",
            "Das Protokoll des Werks hat dies signiert, aber nicht genug Zeugen bestätigen, dass es allen dieselbe Geschichte zeigt. Ist es neu, in einer Minute noch einmal anfordern; bleibt es dabei, Werk und Zeugen nach dem Grund fragen.",
        ),
        Problem::Consistency(_) => (
            "The proof was changed or belongs to other checkpoints. It says nothing about whether the log has two histories.",
            "Der Beweis wurde geändert oder gehört zu anderen Checkpoints. Ob das Protokoll zwei Geschichten hat, sagt er nicht.",
        ),
        Problem::Checkpoint(_) | Problem::Manifest(ManifestError::Signature | ManifestError::Form) => (
            "It was changed after it was signed, or damaged on the way. Do not rely on it; ask the plant to send it again.",
            "Nach dem Signieren wurde etwas geändert oder unterwegs beschädigt. Nicht verwenden; das Werk um eine neue Fassung bitten.",
        ),
        Problem::Manifest(_) | Problem::NotRecognised { .. } | Problem::EmptyLog => (
            "Nothing was proven. Check that this is the right file and a release of lineproof that reads it.",
            "Es ist nichts bewiesen. Prüfen, ob dies die richtige Datei ist und diese Ausgabe von lineproof sie lesen kann.",
        ),
        Problem::Layout(_)
        | Problem::TooLarge { .. }
        | Problem::MissingFile { .. }
        | Problem::ExtraFile { .. }
        | Problem::Order { .. }
        | Problem::Container
        | Problem::Unlisted { .. }
        | Problem::Changed { .. }
        | Problem::PassportForm
        | Problem::Challenge(_)
        | Problem::Passport(_)
        | Problem::Receipt(_)
        | Problem::ReceiptSignature { .. } => (
            "It is not what the plant signed: it was changed, damaged on the way, or packed again. Do not rely on it; ask for the original file.",
            "Das ist nicht, was das Werk signiert hat: geändert, unterwegs beschädigt oder neu gepackt. Nicht verwenden; die Originaldatei anfordern.",
        ),
        Problem::Proof(_) | Problem::Root { .. } | Problem::Inclusion(_) => (
            "These entries do not stand in the log that was signed. Nothing in them is proven.",
            "Diese Einträge stehen nicht im signierten Protokoll. Nichts davon ist bewiesen.",
        ),
        Problem::Nonce { .. } => (
            "Whoever made up this nonce picked the entries. Ask the plant to answer yours, over a checkpoint you held before.",
            "Wer diese Nonce gemacht hat, hat die Einträge ausgewählt. Das Werk um die Antwort auf Ihre bitten, über einen Checkpoint, den Sie vorher hatten.",
        ),
        Problem::Opening { .. } => (
            "The serial number or lot shown does not belong to that decision. The decision itself may be genuine; the part is not proven.",
            "Die gezeigte Seriennummer oder das Los gehört nicht zu dieser Entscheidung. Die Entscheidung kann echt sein; das Teil ist nicht bewiesen.",
        ),
        Problem::MissingTile { .. }
        | Problem::Tile { .. }
        | Problem::TileDiffers { .. }
        | Problem::EntryDiffers { .. }
        | Problem::Unreadable { .. } => (
            "Data is damaged, missing or was changed. Compare with a copy or backup; `lineproof fsck` tells more on the plant's own machine.",
            "Daten sind beschädigt, fehlen oder wurden geändert. Mit einer Kopie oder Sicherung vergleichen; auf dem Rechner des Werks sagt `lineproof fsck` mehr.",
        ),
        Problem::Incomplete { .. } => (
            "What is here is genuine, and it says itself that frames are missing: parts may have passed uninspected. Ask the plant what became of them. What it finds out it can announce with `lineproof close-period --lost`, for all to see.",
            "Was hier steht, ist echt und sagt selbst, dass Bilder fehlen: Teile können ungeprüft durchgelaufen sein. Das Werk fragen, was aus ihnen wurde. Was es herausfindet, kann es mit `lineproof close-period --lost` nachmelden, für alle sichtbar.",
        ),
        Problem::Entry { .. } | Problem::EntryForm { .. } | Problem::Decision { .. } | Problem::Period { .. } => (
            "The plant signed this entry, but its software wrote something that cannot be right. Ask the plant to explain it.",
            "Das Werk hat diesen Eintrag signiert, aber die Software hat etwas geschrieben, das nicht stimmen kann. Das Werk um Erklärung bitten.",
        ),
        Problem::CheckpointDiffers
        | Problem::Form { .. }
        | Problem::Unselected { .. }
        | Problem::Text { .. }
        | Problem::UnnamedText { .. }
        | Problem::MissingText { .. }
        | Problem::Recipe { .. }
        | Problem::Counts
        | Problem::Derived { .. }
        | Problem::Key => (
            "Whoever holds the plant's key signed an export that does not agree with itself. Treat it as wrong and ask the plant to explain it.",
            "Wer den Schlüssel des Werks hat, hat einen Export signiert, der in sich nicht stimmt. Als falsch behandeln und das Werk um Erklärung bitten.",
        ),
    };
    lang.pick(en, de)
}
