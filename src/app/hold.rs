//! `lineproof hold`: legal holds, which no erasure and no retention period overrules.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{
    cli::{DataArgs, now, usage},
    client,
    history::parse_time,
};
use crate::{
    edge::{
        convert,
        pb::{AddHoldRequest, Hold, ListHoldsRequest, ReleaseHoldRequest},
    },
    types::{Instant, LineId, LotId, ProductId, Serial},
};

#[derive(Debug, Subcommand)]
pub enum HoldCommand {
    /// Forbid that something is destroyed; everything that is named must be so of an entry
    Add(AddArgs),
    /// Show the holds there are
    List(ListArgs),
    /// End a hold
    Release(ReleaseArgs),
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// Why, in your words. Stands in the log in clear, for ever
    #[arg(long, value_name = "TEXT")]
    rule: String,
    /// Serial number of a part
    #[arg(long, value_name = "SERIAL")]
    part: Option<Serial>,
    #[arg(long)]
    lot: Option<LotId>,
    /// A person or client who asked
    #[arg(long, value_name = "NAME")]
    person: Option<String>,
    #[arg(long)]
    product: Option<ProductId>,
    #[arg(long)]
    line: Option<LineId>,
    /// Decided from this time on: 2026-11-23, 2026-11-23T06:00:00Z, or an age such as 8h or 7d
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Decided before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// The hold's number, as `hold add` and `hold list` say it
    hold: u64,
    /// Why, in your words
    #[arg(long, value_name = "TEXT")]
    rule: String,
    #[command(flatten)]
    data: DataArgs,
}

/// # Errors
/// When the data directory does not answer.
pub fn run(command: &HoldCommand) -> anyhow::Result<ExitCode> {
    match command {
        HoldCommand::Add(args) => add(args),
        HoldCommand::List(args) => list(args),
        HoldCommand::Release(args) => release(args),
    }
}

fn add(args: &AddArgs) -> anyhow::Result<ExitCode> {
    fn text<T: ToString>(value: &Option<T>) -> String {
        value.as_ref().map(ToString::to_string).unwrap_or_default()
    }
    let now = now()?;
    let time = |name: &str, text: &Option<String>| {
        text.as_deref().map(|text| parse_time(text, now).map_err(|why| format!("--{name}: {why}"))).transpose()
    };
    let times = time("from", &args.from).and_then(|from| Ok((from, time("to", &args.to)?)));
    let (from, to) = match times {
        Ok(times) => times,
        Err(reason) => return Ok(usage(&reason)),
    };
    let request = AddHoldRequest {
        rule: args.rule.clone(),
        serial: text(&args.part),
        lot: text(&args.lot),
        client: text(&args.person),
        product: text(&args.product),
        line: text(&args.line),
        from: from.map(convert::timestamp),
        to: to.map(convert::timestamp),
    };
    let answer = client::with_office(&args.data.data, async |office| {
        office.retention().add_hold(request).await.map_err(client::said)
    })?;
    let hold = answer.into_inner().hold;
    println!("hold {hold}: what it concerns is not destroyed until `lineproof hold release {hold}`");
    Ok(ExitCode::SUCCESS)
}

fn release(args: &ReleaseArgs) -> anyhow::Result<ExitCode> {
    let request = ReleaseHoldRequest { hold: args.hold, rule: args.rule.clone() };
    let answer = client::with_office(&args.data.data, async |office| {
        office.retention().release_hold(request).await.map_err(client::said)
    })?;
    println!("hold {} is released, recorded as entry {}", args.hold, answer.into_inner().entry_index);
    Ok(ExitCode::SUCCESS)
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let answer = client::with_office(&args.data.data, async |office| {
        office.retention().list_holds(ListHoldsRequest {}).await.map_err(client::said)
    })?;
    let holds = answer.into_inner().holds;
    if holds.is_empty() && !args.json {
        println!("there are no holds");
    }
    for hold in &holds {
        if args.json { println!("{}", json(hold)) } else { println!("{}", words(hold)) }
    }
    Ok(ExitCode::SUCCESS)
}

fn words(hold: &Hold) -> String {
    let facts = facts(hold).into_iter().map(|(name, value)| format!("{name} {value}"));
    let rule = hold.what.as_ref().map(|what| what.rule.clone()).unwrap_or_default();
    let since = time(hold.since).map(|time| time.to_string()).unwrap_or_default();
    format!("hold {}  since {since}  {}  {rule}", hold.hold, facts.collect::<Vec<_>>().join(", "))
}

fn json(hold: &Hold) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    object.insert("hold".into(), hold.hold.into());
    if let Some(since) = time(hold.since) {
        object.insert("since".into(), since.to_string().into());
    }
    object.insert("rule".into(), hold.what.as_ref().map(|what| what.rule.clone()).unwrap_or_default().into());
    object.extend(facts(hold).into_iter().map(|(name, value)| (name.to_owned(), value.into())));
    object.into()
}

/// What a hold concerns, by the names of the options.
fn facts(hold: &Hold) -> Vec<(&'static str, String)> {
    let Some(what) = &hold.what else { return Vec::new() };
    let moment = |timestamp| time(timestamp).map(|time| time.to_string()).unwrap_or_default();
    let facts = [
        ("part", what.serial.clone()),
        ("lot", what.lot.clone()),
        ("person", what.client.clone()),
        ("product", what.product.clone()),
        ("line", what.line.clone()),
        ("from", moment(what.from)),
        ("to", moment(what.to)),
    ];
    facts.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn time(timestamp: Option<prost_types::Timestamp>) -> Option<Instant> {
    timestamp.and_then(|timestamp| convert::instant("time", timestamp).ok())
}
