//! What a verifier says, in English and German: steps it took, and what is wrong and what that means.

mod de;
mod en;

use std::collections::BTreeMap;

use super::{
    Lang,
    keys::NoteError,
    manifest::ManifestError,
    verify::{Problem, Step},
};
use crate::core::{lineage::period::Incomplete, witness::compare::Comparison};

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

/// `3 not_archived, 1 image_gone`.
fn counts_by_code(counts: &BTreeMap<&'static str, u64>) -> String {
    counts.iter().map(|(code, count)| format!("{} {code}", number(*count))).collect::<Vec<_>>().join(", ")
}

fn not_there(missing: &[String], verb: &str) -> String {
    if missing.is_empty() { String::new() } else { format!(" ({verb}: {})", missing.join(", ")) }
}

/// One line that says what a step found right.
#[must_use]
pub fn step(step: &Step, lang: Lang) -> String {
    match lang {
        Lang::En => en::step(step),
        Lang::De => de::step(step),
    }
}

/// What in genuine evidence its reader should not pass over.
#[must_use]
pub fn warning(step: &Step, lang: Lang) -> Option<&'static str> {
    let Step::Replayed { exact, within, differs, .. } = step else { return None };
    if *differs > 0 {
        return Some(lang.pick(
            "WARNING: decisions came out differently when the plant decided them again. That does not make the answer false; ask the plant why.",
            "WARNUNG: Entscheidungen fielen anders aus, als das Werk sie noch einmal traf. Das macht die Antwort nicht falsch; das Werk nach dem Grund fragen.",
        ));
    }
    (exact + within == 0).then(|| {
        lang.pick(
            "WARNING: none of the picked decisions could be decided again; ask the plant why.",
            "WARNUNG: Keine der gewählten Entscheidungen ließ sich noch einmal treffen; das Werk nach dem Grund fragen.",
        )
    })
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
        Lang::En => en::wrong(problem),
        Lang::De => de::wrong(problem),
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
        | Problem::Replay(_)
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
        Problem::Handover => (
            "Nothing was proven of a next key. Ask the plant for the handover of the key it signs with now.",
            "Über einen nächsten Schlüssel ist nichts bewiesen. Das Werk um die Übergabe zu dem Schlüssel bitten, mit dem es jetzt signiert.",
        ),
        Problem::Retired { .. } => (
            "Somebody signed this with a key that the plant had ended before. If that key was stolen, this may be a forgery: ask the plant, and a witness.",
            "Jemand hat dies mit einem Schlüssel signiert, den das Werk vorher außer Dienst gestellt hatte. War er gestohlen, kann es eine Fälschung sein: das Werk und einen Zeugen fragen.",
        ),
        Problem::Count { .. } | Problem::NoReplays => (
            "It answers another question than yours. Ask the plant to answer what you asked.",
            "Das ist die Antwort auf eine andere Frage als Ihre. Das Werk um die Antwort auf Ihre bitten.",
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
