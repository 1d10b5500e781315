//! The sentences in German.

use super::{counts_by_code, missing, not_there, number, plural};
use crate::core::{
    export::{
        Lang,
        consistency::Contradiction,
        keys::NoteError,
        manifest::ManifestError,
        verify::{Problem, ReplayFault, Step},
    },
    lineage::{
        period::{Incomplete, PeriodFault},
        tree,
    },
};

pub(super) fn step(step: &Step) -> String {
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
        Step::Handover { index, origin, key } => format!(
            "Übergabe: Eintrag {index} von {origin} kündigt {key} an, unter einem gegebenen Schlüssel; auch ihm wird vertraut"
        ),
        Step::Announced { vkey } => {
            format!("Nächster Schlüssel: Von hier an signiert auch dieser die Checkpoints des Protokolls: {vkey}")
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
        Step::LaterCheckpoint { size, key } => format!(
            "Späterer Checkpoint: dasselbe Protokoll mit {} Einträgen, signiert von {key}. Diese Antwort aufbewahren und mit --against mit dem nächsten Checkpoint vergleichen: Was hier steht, muss dort stehen",
            number(*size)
        ),
        Step::Replayed { exact, within, differs, not_replayable, eps, largest, size } => {
            let ran = plural(exact + within + differs, "Entscheidung", "Entscheidungen");
            let largest = largest.as_ref().map_or_else(String::new, |largest| format!(", größte Differenz {largest}"));
            let differ = match differs {
                0 => "keine weicht ab".to_owned(),
                1 => "1 WEICHT AB".to_owned(),
                many => format!("{} WEICHEN AB", number(*many)),
            };
            let not = match counts_by_code(not_replayable) {
                none if none.is_empty() => none,
                not => format!("; nicht noch einmal zu entscheiden: {not}"),
            };
            format!(
                "Vom Werk noch einmal entschieden, vermerkt nach dem Checkpoint und vor Eintrag {}: {ran}: {} bitgleich, {} innerhalb {eps}, {differ}{largest}{not}",
                number(*size),
                number(*exact),
                number(*within)
            )
        }
        Step::Part { index, kind, verdict: None, time, .. } => {
            let when = time.as_ref().map_or_else(String::new, |time| format!(", geschrieben {time}"));
            format!("Eintrag: {}, {}, keine Entscheidung über ein Teil{when}", number(*index), name_of_kind(kind))
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

fn name_of_kind(kind: &str) -> String {
    match kind {
        "gap" => "eine Lücke".into(),
        "recipe" => "ein Rezept".into(),
        "access" => "ein Zugriff".into(),
        "key" => "ein Schlüssel".into(),
        "rotation" => "ein Wechsel des Protokollschlüssels".into(),
        "start" => "ein Start des Dienstes".into(),
        "period_close" => "der Abschluss eines Zeitraums".into(),
        "retention" => "eine Löschung oder Aufbewahrungssperre".into(),
        "replay" => "eine Wiederholung von Entscheidungen".into(),
        other => format!("von der Art {other:?}"),
    }
}

pub(super) fn wrong(problem: &Problem) -> String {
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
        Problem::Checkpoint(error) => format!("Checkpoint: {}", say_note(error)),
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
        Problem::Manifest(error) => format!("Manifest: {}", say_manifest(error)),
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
            format!("die Entscheidung in Eintrag {index} widerspricht sich: {}", say_contradiction(contradiction))
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
                "boxes" => "anderen Rahmen",
                _ => "anderen Schwellen",
            };
            format!("Eintrag {index} wurde mit {what} entschieden, als sein Rezept sagt")
        }
        Problem::Counts => "die Zahlen im Manifest sind nicht die der Einträge".into(),
        Problem::Period { index, fault } => {
            format!("der Abschluss in Eintrag {index} kann nicht stimmen: {}", say_fault(*fault))
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
        Problem::Replay(fault) => match fault {
            ReplayFault::NotLater => "der zweite Checkpoint ist kein späterer desselben Protokolls".into(),
            ReplayFault::Place { index } => {
                format!("Eintrag {index} steht nicht zwischen den beiden Checkpoints, oder nicht an seinem Platz")
            }
            ReplayFault::Form { index } => {
                format!("Eintrag {index} ist keine Wiederholung, oder anders geschrieben als festgelegt")
            }
            ReplayFault::OtherChallenge { index } => {
                format!("die Wiederholung in Eintrag {index} ist nicht für diese Stichprobe gemacht")
            }
            ReplayFault::Eps { index } => {
                format!("die Wiederholung in Eintrag {index} lässt größere Differenzen zu als eine Stichprobe")
            }
            ReplayFault::Outcome { index } => format!(
                "was eine Wiederholung über Eintrag {index} sagt, kann nicht sein, nach dem, was die Entscheidung über Bild und Laufzeit sagt"
            ),
            ReplayFault::Unasked { index } => {
                format!(
                    "eine Wiederholung nennt Eintrag {index}, der keine gewählte Entscheidung ist oder schon genannt war"
                )
            }
            ReplayFault::Missing { index } => {
                format!("keine Wiederholung nennt die gewählte Entscheidung in Eintrag {index}")
            }
        },
        Problem::Count { found } => {
            format!(
                "geantwortet ist auf eine Stichprobe von {found} Einträgen, nicht von so vielen, wie Sie verlangt haben"
            )
        }
        Problem::NoReplays => {
            "die Antwort sagt nicht, was herauskam, als die gewählten Entscheidungen noch einmal getroffen wurden"
                .into()
        }
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
        Problem::Handover => {
            "die Übergabe ist echt, aber ihr Eintrag kündigt keinen Schlüssel dieses Protokolls an".into()
        }
        Problem::Retired { key } => {
            format!("der Checkpoint ist mit {key} signiert, den ein Eintrag dieses Protokolls außer Dienst stellte")
        }
    }
}

fn say_fault(fault: PeriodFault) -> &'static str {
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

fn say_note(error: &NoteError) -> String {
    match error {
        NoteError::NoSignature { origin } => {
            format!("keiner der angegebenen Schlüssel hat den Checkpoint des Protokolls {origin:?} signiert")
        }
        NoteError::Signature { key } => format!("die Signatur von {key} unter dem Checkpoint stimmt nicht"),
        NoteError::Form(_) | NoteError::Checkpoint(_) => format!("er ist keine signierte Notiz ({error})"),
    }
}

fn say_manifest(error: &ManifestError) -> String {
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

fn say_contradiction(contradiction: &Contradiction) -> String {
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
        Contradiction::Place(label) => {
            format!(
                "das Label {label:?} wurde in keinem Rahmen gefunden, in einem ohne Pixel oder in einem außerhalb des Bildes"
            )
        }
        Contradiction::NoDefect => "kein Label ist ein Fehler".into(),
        Contradiction::Reason(reason) => format!("der Grund {reason:?} folgt nicht aus Werten und Schwellen"),
    }
}
