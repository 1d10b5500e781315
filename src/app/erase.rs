//! `lineproof erase`: destroys one private value wherever it is filed, and every proof stays valid.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::Args;

use super::{
    cli::{DataArgs, usage},
    client,
};
use crate::edge::pb::{EraseRequest, EraseResponse, erase_request::Value};

/// What is typed to go on.
const CONSENT: &str = "erase";

#[derive(Debug, Args)]
#[command(
    after_help = "One of --part, --lot and --person. A frame id stands in the log in clear and is not erased; nor are \
                  exports and passports that were given away, backups, and the line PC's own records. docs/retention.md."
)]
pub struct EraseArgs {
    #[command(flatten)]
    what: What,
    /// Rule or legal basis, in your words. Stands in the log in clear, for ever
    #[arg(long, value_name = "TEXT")]
    rule: String,
    /// Only say what would be erased
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Facts for machines instead of sentences
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Serial number of a part
    #[arg(long, value_name = "SERIAL")]
    part: Option<String>,
    /// A lot: its name goes, its parts' serial numbers stay
    #[arg(long, value_name = "LOT")]
    lot: Option<String>,
    /// A person or client who asked, as the log has noted them; every entry is looked at
    #[arg(long, value_name = "NAME")]
    person: Option<String>,
}

impl EraseArgs {
    fn request(&self, dry_run: bool) -> EraseRequest {
        let What { part, lot, person } = &self.what;
        let value = part.clone().map(Value::Serial);
        let value = value.or_else(|| lot.clone().map(Value::Lot)).or_else(|| person.clone().map(Value::Client));
        EraseRequest { value, rule: self.rule.clone(), dry_run }
    }
}

/// # Errors
/// When nothing holds the value, a legal hold forbids it, or the data directory does not answer.
pub fn erase(args: &EraseArgs) -> anyhow::Result<ExitCode> {
    let must_ask = !args.dry_run && !args.yes;
    if must_ask && !io::stdin().is_terminal() {
        return Ok(usage("erasing cannot be undone: say --yes, or --dry-run to look first"));
    }
    let erased = client::with_office(&args.data.data, async |office| {
        if must_ask {
            let found = ask(office, args.request(true)).await?;
            eprint!("{}", words(&found));
            if !consents()? {
                return Ok(None);
            }
        }
        ask(office, args.request(args.dry_run)).await.map(Some)
    })?;
    let Some(erased) = erased else {
        eprintln!("nothing was erased");
        return Ok(ExitCode::from(1));
    };
    if args.json {
        println!("{}", json(&erased))
    } else {
        print!("{}", words(&erased))
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(office: &client::Office, request: EraseRequest) -> anyhow::Result<EraseResponse> {
    Ok(office.retention().erase(request).await.map_err(client::said)?.into_inner())
}

fn consents() -> io::Result<bool> {
    eprint!("This cannot be undone. Type {CONSENT} to go on: ");
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == CONSENT)
}

fn words(erased: &EraseResponse) -> String {
    let EraseResponse { entries, count, decisions, in_clear, recorded } = erased;
    let in_entries = counted(*count, "entry", "entries");
    let held = format!("in {in_entries}, {decisions} of them decisions: {entries}\n");
    let mut text = match recorded.as_slice() {
        [] => format!("{held}it would be erased there; nothing is changed yet\n"),
        recorded => {
            let recorded: Vec<String> = recorded.iter().map(ToString::to_string).collect();
            format!(
                "erased, with its salt, from {in_entries}, {decisions} of them decisions: {entries}\nrecorded as entry {}; every proof stays valid\n",
                recorded.join(", ")
            )
        }
    };
    if *in_clear > 0 {
        text.push_str(&format!(
            "NOT ERASABLE: {} in it, in clear, for ever; let the line PC send other frame ids\n",
            counted(*in_clear, "frame id has the value", "frame ids have the value")
        ));
    }
    text
}

/// A number with its noun.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn json(erased: &EraseResponse) -> serde_json::Value {
    serde_json::json!({
        "entries": erased.entries,
        "count": erased.count,
        "decisions": erased.decisions,
        "in_clear": erased.in_clear,
        "recorded": erased.recorded,
    })
}
