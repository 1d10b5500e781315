//! `lineproof history` and `reindex`.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::Args;

use super::{
    cli::{DataArgs, now, usage},
    client,
    config::Config,
    history::{SearchArgs, ShowArgs, Shown, ShownCount, ShownErased, write_counts, write_json, write_table},
    keys, reindex, server,
};
use crate::{
    edge::{convert, pb},
    ports::index::Order,
    types::{Instant, Verdict},
};

/// Rows asked for at a time.
const PAGE_ROWS_MAX: usize = 500;

#[derive(Debug, Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    show: ShowArgs,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Debug, Args)]
pub struct ReindexArgs {
    #[command(flatten)]
    data: DataArgs,
}

/// # Errors
/// When the service or the data directory does not answer.
pub fn history(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    let filter = match args.search.filter(now()?) {
        Ok(filter) => convert::filter_message(&filter),
        Err(reason) => return Ok(usage(&reason)),
    };
    let mut out = std::io::stdout().lock();
    if args.show.count.is_some() {
        let rows = client::with_office(&args.data.data, async |office| count(office, filter, &args.show).await)?;
        if args.show.json { write_json(&mut out, &rows)? } else { write_counts(&mut out, &rows)? }
    } else {
        let rows = client::with_office(&args.data.data, async |office| list(office, filter, &args.show).await)?;
        let colour = out.is_terminal();
        if args.show.json { write_json(&mut out, &rows)? } else { write_table(&mut out, &rows, colour)? }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

async fn list(office: &client::Office, filter: pb::DecisionFilter, show: &ShowArgs) -> anyhow::Result<Vec<Shown>> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    while rows.len() < show.limit {
        let request = pb::ListDecisionsRequest {
            filter: Some(filter.clone()),
            page_size: u32::try_from((show.limit - rows.len()).min(PAGE_ROWS_MAX))?,
            cursor,
            oldest_first: show.order() == Order::OldestFirst,
        };
        let page = office.history().list_decisions(request).await.map_err(client::said)?.into_inner();
        rows.extend(page.decisions.into_iter().map(shown));
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    Ok(rows)
}

async fn count(
    office: &client::Office,
    filter: pb::DecisionFilter,
    show: &ShowArgs,
) -> anyhow::Result<Vec<ShownCount>> {
    use crate::ports::index::GroupBy;
    let group_by = match show.by.map(super::history::CountApart::group) {
        None => pb::GroupBy::None,
        Some(GroupBy::Line) => pb::GroupBy::Line,
        Some(GroupBy::Product) => pb::GroupBy::Product,
        Some(GroupBy::Recipe) => pb::GroupBy::Recipe,
    };
    let bucket = show.count.and_then(super::history::CountEvery::bucket);
    let width = |nanos: i64| prost_types::Duration { seconds: nanos / 1_000_000_000, nanos: 0 };
    let request = pb::CountDecisionsRequest {
        filter: Some(filter),
        bucket: bucket.map(|bucket| width(bucket.width_nanos)),
        group_by: group_by.into(),
    };
    let answer = office.history().count_decisions(request).await.map_err(client::said)?.into_inner();
    if bucket.is_none() && group_by == pb::GroupBy::None {
        let pb::CountDecisionsResponse { ok, not_ok, not_decidable, .. } = answer;
        return Ok(vec![ShownCount { from: None, group: None, ok, not_ok, not_decidable }]);
    }
    let shown = |bucket: pb::CountBucket| ShownCount {
        from: bucket.start.and_then(time),
        group: (!bucket.group.is_empty()).then_some(bucket.group),
        ok: bucket.ok,
        not_ok: bucket.not_ok,
        not_decidable: bucket.not_decidable,
    };
    Ok(answer.buckets.into_iter().map(shown).collect())
}

fn shown(row: pb::DecisionRow) -> Shown {
    let verdict = match row.verdict() {
        pb::Verdict::Ok => Verdict::Ok.name(),
        pb::Verdict::NotOk => Verdict::NotOk.name(),
        pb::Verdict::NotDecidable => Verdict::NotDecidable.name(),
        pb::Verdict::Undefined => "UNDEFINED",
    };
    Shown {
        entry_index: row.entry_index,
        time: row.decided_at.and_then(time).unwrap_or_default(),
        line: row.line,
        station: row.station,
        camera: row.camera,
        frame_id: row.frame_id,
        frame_counter: row.frame_counter,
        product: row.product,
        serial: (!row.serial.is_empty()).then_some(row.serial),
        lot: (!row.lot.is_empty()).then_some(row.lot),
        erased: row.erased.into_iter().map(erased).collect(),
        verdict: verdict.to_owned(),
        score: row.score,
        reasons: row.reasons,
        recipe: row.recipe,
    }
}

/// A destroyed value as it is shown.
pub(super) fn erased(value: pb::ErasedValue) -> ShownErased {
    let pb::ErasedValue { field, entry_index, erased_at, rule } = value;
    ShownErased { field, entry_index, time: erased_at.and_then(time).unwrap_or_default(), rule }
}

fn time(timestamp: prost_types::Timestamp) -> Option<String> {
    let nanos = timestamp.seconds.checked_mul(1_000_000_000)?.checked_add(i64::from(timestamp.nanos))?;
    Instant::from_unix_nanos(nanos).ok().map(|time| time.to_string())
}

/// # Errors
/// When a running service has the index, or the log does not read.
pub fn reindex(args: &ReindexArgs) -> anyhow::Result<ExitCode> {
    let data_dir = &args.data.data;
    let config = Config::load(data_dir)?;
    let keys = keys::open(data_dir)?;
    let (log, reader) = server::open_log(&config, data_dir, &keys)?;
    let bar = super::camera::progress::Progress::new(None, "entries");
    let entries = reindex::reindex(&data_dir.join("index"), keys.index_key(), Arc::new(reader), |progress| {
        bar.at(progress.done);
    })?;
    bar.finish();
    log.shutdown();
    println!("indexed {entries} entries");
    Ok(ExitCode::SUCCESS)
}
