//! `lineproof demo`: the whole way on a simulated line, by itself, leaving its evidence behind.

use std::{
    fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use clap::Args;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{
    camera::{
        ImageFormat,
        client::LineClient,
        ledger::Ledger,
        source::{self, SharedLedger},
        summary::Summary,
        words::{Answered, LineConfig, LineEvent},
    },
    config::{self, Config},
    init, server, verify,
};
use crate::{
    core::{
        export::{self, Lang, zip::Archive},
        simulate::{Simulator, SimulatorConfig},
    },
    edge::pb::{
        self, audit_service_client::AuditServiceClient, get_passport_request::Of,
        history_service_client::HistoryServiceClient, inspection_service_client::InspectionServiceClient,
    },
    types::Verdict,
};

/// Fewest parts that show something: the report's charts need some of each verdict.
const PARTS_MIN: u64 = 200;
/// How long the demo waits for the index to hold what the line was told.
const INDEX_MAX: Duration = Duration::from_secs(10);
/// A plain line of progress after this many parts, where no terminal shows a bar.
const LINE_EVERY_PARTS: u64 = 40;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder to leave everything in; a former demo there is replaced
    #[arg(long, default_value = "demo", value_name = "DIR")]
    dir: PathBuf,
    /// Parts on the simulated line
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u64).range(PARTS_MIN..=1_000_000))]
    parts: u64,
    /// Share of bad parts
    #[arg(long, default_value_t = 0.15, value_name = "0..1")]
    defect_rate: f32,
    /// The same seed gives the same parts
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// # Errors
/// When a step fails; the demo's own forgery being accepted is a failure, too.
pub fn run(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(demo(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn demo(args: &DemoArgs) -> anyhow::Result<()> {
    let dir = &args.dir;
    let data = dir.join("data");
    prepare(dir)?;
    let vkey = dir.join("log.vkey");

    step(1, &format!("a data directory with new keys: {}", data.display()));
    let options = init::InitOptions {
        plant: "Demo plant".into(),
        origin: "lineproof.local/demo".into(),
        line: "line-1".parse()?,
        station: "station-1".parse()?,
        camera: "cam-1".parse()?,
    };
    init::init(&data, &options)?;
    fs::copy(data.join("log.vkey"), &vkey).context("the verifier key")?;

    let config = Config::load(&data)?;
    let server = server::Server::open(config, &data, server::Role::Inspect)?;
    let loopback = ([127, 0, 0, 1], 0).into();
    let (line, office) =
        (server::bind(loopback, "listen.address").await?, server::bind(loopback, "office.address").await?);
    let (address, office_address) = (line.local_addr()?, office.local_addr()?);
    step(2, &format!("the service listens on {address} (loopback, plain text) with recipe machined-surface@1.1.0"));
    let stopper = CancellationToken::new();
    let listeners = server::Listeners { line, office: Some(office), socket: server.listen_socket() };
    let serving = tokio::spawn(server.serve(listeners, stopper.clone()));

    step(
        3,
        &format!("{} simulated parts, {:.0} % of them bad, through the model", args.parts, args.defect_rate * 100.0),
    );
    let summary = inspect_parts(args, &format!("http://{address}"), &options).await?;
    if summary.decided() != args.parts {
        bail!("{} of {} parts got a verdict:\n{}", summary.decided(), args.parts, summary.to_text());
    }
    println!("{}", indent(&summary.to_text()));

    let channel = Channel::from_shared(format!("http://{address}"))?.connect().await?;
    close_period(&channel, args.parts, &options).await?;
    let channel = Channel::from_shared(format!("http://{office_address}"))?.connect().await?;
    let part = wait_for_bad_part(&channel, args.parts).await?;
    let passport_path = dir.join(format!("{}.tlog-proof", part.serial));
    step(
        4,
        &format!("the passport of part {}, judged {}: {}", part.serial, verdict_name(&part), passport_path.display()),
    );
    let passport = passport(&channel, &part.serial).await?;
    fs::write(&passport_path, &passport)?;
    check(&passport_path, &vkey, true)?;

    let report = dir.join("report.zip");
    step(5, &format!("the evidence of the whole line in one file: {}", report.display()));
    export(&channel, &report).await?;
    extract_report(&report, &dir.join("report.html"))?;
    check(&report, &vkey, true)?;

    stopper.cancel();
    serving.await??;

    let forged = dir.join("forged").join(format!("{}.tlog-proof", part.serial));
    step(6, &format!("a forgery: the same passport, with the verdict changed to OK: {}", forged.display()));
    fs::create_dir_all(dir.join("forged"))?;
    fs::write(&forged, forge(&passport)?)?;
    check(&forged, &vkey, false)?;

    println!();
    println!("left in {}:", dir.display());
    println!("  report.html          what a person at the customer reads; open it in a browser");
    println!(
        "  report.zip           the same with all evidence: lineproof verify {} --key {}",
        report.display(),
        vkey.display()
    );
    println!("  {}.tlog-proof", part.serial);
    println!("  log.vkey             the log's public key, all that a verifier needs");
    println!("  data/                the data directory: lineproof serve --data {}", data.display());
    Ok(())
}

fn step(number: u32, text: &str) {
    println!("\n{number}  {text}");
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("   {line}")).collect::<Vec<_>>().join("\n")
}

/// Makes the folder, and removes a former demo. Any other content is left alone and ends the demo.
fn prepare(dir: &Path) -> anyhow::Result<()> {
    if dir.join("data").join(config::FILE_NAME).is_file() {
        fs::remove_dir_all(dir).with_context(|| format!("removing the former demo in {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    if fs::read_dir(dir)?.next().is_some() {
        bail!("{} is not empty and holds no former demo; give another folder with --dir", dir.display());
    }
    Ok(())
}

async fn inspect_parts(args: &DemoArgs, server: &str, options: &init::InitOptions) -> anyhow::Result<Summary> {
    let simulator = Simulator::new(SimulatorConfig {
        seed: args.seed,
        defect_rate: args.defect_rate,
        ..SimulatorConfig::default()
    })?;
    let config = LineConfig::new(
        server,
        options.line.clone(),
        options.station.clone(),
        options.camera.clone(),
        "demo-part".parse()?,
    );
    let client = LineClient::connect(config)?;
    let frames = source::simulated(
        simulator,
        ImageFormat::Png,
        1..args.parts + 1,
        None,
        true,
        SharedLedger::new(Ledger::in_memory(1)),
    );
    let mut view = View::new(args.parts);
    let summary = client.run(frames, CancellationToken::new(), |event| view.show(&event)).await;
    view.bar.finish_and_clear();
    Ok(summary)
}

/// The line says what it made: whatever the log did not account for would be missing in all evidence from here on.
async fn close_period(channel: &Channel, parts: u64, options: &init::InitOptions) -> anyhow::Result<()> {
    let request = pb::ClosePeriodRequest {
        line: options.line.to_string(),
        station: options.station.to_string(),
        camera: options.camera.to_string(),
        period: "demo".into(),
        first_counter: Some(1),
        last_counter: parts,
        parts: Some(parts),
        ..pb::ClosePeriodRequest::default()
    };
    let closed = InspectionServiceClient::new(channel.clone()).close_period(request).await?.into_inner();
    if !closed.complete {
        bail!("the line made {parts} parts, and {} of their frames are missing in the log", closed.missing);
    }
    println!(
        "   the line announces {parts} parts: {} decided, {} noted as gaps, none missing (entry {})",
        closed.decided, closed.gaps, closed.entry_index
    );
    Ok(())
}

/// The live view: a bar on a terminal, a line now and then elsewhere.
struct View {
    bar: indicatif::ProgressBar,
    is_terminal: bool,
    done: u64,
    counts: [u64; 3],
    latest_us: Vec<u64>,
}

impl View {
    fn new(parts: u64) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if is_terminal {
            let style = indicatif::ProgressStyle::with_template("   {bar:30} {pos}/{len}  {msg}");
            indicatif::ProgressBar::new(parts).with_style(style.expect("the template is valid"))
        } else {
            indicatif::ProgressBar::hidden()
        };
        Self { bar, is_terminal, done: 0, counts: [0; 3], latest_us: Vec::new() }
    }

    fn show(&mut self, event: &LineEvent<'_>) {
        let LineEvent::Answered(Answered { frame, outcome: Ok(decision), latency, .. }) = event else { return };
        self.done += 1;
        self.counts[decision.verdict as usize] += 1;
        self.latest_us.push(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        let [ok, not_decidable, not_ok] = self.counts;
        let is_due = self.done.is_multiple_of(LINE_EVERY_PARTS);
        if self.is_terminal || is_due {
            let mut sorted = self.latest_us.clone();
            sorted.sort_unstable();
            let p50_ms = Duration::from_micros(sorted[sorted.len() / 2]).as_secs_f64() * 1000.0;
            let text = format!("OK {ok}  NOT_OK {not_ok}  NOT_DECIDABLE {not_decidable}  p50 {p50_ms:.1} ms");
            self.bar.set_position(self.done);
            self.bar.set_message(text.clone());
            if !self.is_terminal {
                println!("   {:>4} parts  {text}", self.done);
            }
            if is_due {
                self.latest_us.clear();
            }
        }
        if decision.verdict == Verdict::NotOk && self.counts[Verdict::NotOk as usize] <= 3 {
            let label = decision.top_label().map_or("", |top| top.label.as_str());
            let line = format!(
                "   {}  {}  {label} {:.2}  entry {}",
                frame.serial, decision.verdict, decision.score, decision.entry_index
            );
            if self.is_terminal { self.bar.println(line) } else { println!("{line}") }
        }
    }
}

/// The first part that was judged NOT_OK, once history knows all parts.
async fn wait_for_bad_part(channel: &Channel, parts: u64) -> anyhow::Result<pb::DecisionRow> {
    let mut history = HistoryServiceClient::new(channel.clone());
    let started = Instant::now();
    loop {
        let counted = history.count_decisions(pb::CountDecisionsRequest::default()).await?.into_inner();
        if counted.ok + counted.not_ok + counted.not_decidable >= parts {
            break;
        }
        if started.elapsed() > INDEX_MAX {
            bail!("the index did not follow the log within {INDEX_MAX:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let filter = pb::DecisionFilter { verdicts: vec![pb::Verdict::NotOk.into()], ..pb::DecisionFilter::default() };
    let request =
        pb::ListDecisionsRequest { filter: Some(filter), page_size: 1, oldest_first: true, ..Default::default() };
    let page = history.list_decisions(request).await?.into_inner();
    page.decisions.into_iter().next().context("no part was judged NOT_OK; try another --seed or a higher --defect-rate")
}

fn verdict_name(row: &pb::DecisionRow) -> &'static str {
    match row.verdict() {
        pb::Verdict::Ok => Verdict::Ok.name(),
        pb::Verdict::NotOk => Verdict::NotOk.name(),
        pb::Verdict::NotDecidable => Verdict::NotDecidable.name(),
        pb::Verdict::Undefined => "UNDEFINED",
    }
}

async fn passport(channel: &Channel, serial: &str) -> anyhow::Result<String> {
    let request = pb::GetPassportRequest { of: Some(Of::Serial(serial.to_owned())) };
    let answer = AuditServiceClient::new(channel.clone()).get_passport(request).await?.into_inner();
    Ok(answer.passports.into_iter().next().context("the service gave no passport")?.text)
}

async fn export(channel: &Channel, path: &Path) -> anyhow::Result<()> {
    let request = pb::ExportRequest { filter: None };
    let mut stream = AuditServiceClient::new(channel.clone()).export(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.message().await? {
        bytes.extend_from_slice(&chunk.data);
    }
    fs::write(path, bytes).with_context(|| path.display().to_string())
}

/// Takes the readable report out of the evidence file.
fn extract_report(zip: &Path, html: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(zip)?;
    let archive = Archive::open(&bytes)?;
    let mut report = archive.reader(export::REPORT).context("the export holds no report.html")?;
    std::io::copy(&mut report, &mut fs::File::create(html)?)?;
    Ok(())
}

/// Runs the auditor's check and holds it to what must come out.
fn check(file: &Path, vkey: &Path, should_hold: bool) -> anyhow::Result<()> {
    println!("   $ lineproof verify {} --key {}", file.display(), vkey.display());
    let holds = verify::check(&verify::VerifyArgs {
        count: None,
        replays: false,
        file: file.to_owned(),
        key: Some(vkey.to_owned()),
        policy: None,
        handover: Vec::new(),
        against: None,
        nonce: None,
        json: false,
        lang: Some(Lang::En),
    })?;
    match (holds, should_hold) {
        (true, true) | (false, false) => Ok(()),
        (false, true) => bail!("{} does not verify", file.display()),
        (true, false) => bail!("a forged {} verifies", file.display()),
    }
}

/// The passport with its entry's verdict changed to OK, the way a forger would.
fn forge(passport: &str) -> anyhow::Result<String> {
    let extra =
        passport.lines().find_map(|line| line.strip_prefix("extra ")).context("the passport has no extra line")?;
    let entry = BASE64.decode(extra)?;
    let text = String::from_utf8_lossy(&entry).replace(r#""verdict":"NOT_OK""#, r#""verdict":"OK""#);
    if text.as_bytes() == entry {
        bail!("the passport names no NOT_OK verdict");
    }
    Ok(passport.replace(extra, &BASE64.encode(text.as_bytes())))
}
