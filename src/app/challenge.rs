//! `lineproof challenge`: answers an outsider who picks entries at random, without a say in which.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;

use super::{
    cli::{DataArgs, usage},
    client::{self, Office},
    evidence::write_whole,
    replay::{self, Seen},
};
use crate::{
    core::{
        export::{
            challenge::{Answer, Challenge, Replays},
            keys::{Note, read_checkpoint},
            manifest::CheckpointFacts,
            multiproof::{self, Leaf},
        },
        lineage::{entry::Entry, passport::Passport, replay::EPS, tree::leaf_hash},
    },
    edge::pb::{self, get_passport_request::Of, replay_request::Which},
    types::Sha256Digest,
};

/// How long a noted replay may wait for its checkpoint.
const COVERED_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether it has one.
const LOOK: Duration = Duration::from_millis(100);

/// Answer an auditor's nonce with the entries it picks and their proofs.
///
/// The auditor holds a checkpoint of this log, better a cosigned one, and only then makes up the nonce. Each entry given is noted
/// in the log. Serial numbers stay closed: ask for passports of parts.
#[derive(Debug, Args)]
pub struct ChallengeArgs {
    /// The auditor's nonce: 32 to 128 hex digits, made up after the checkpoint was signed
    nonce: String,
    /// How many entries
    #[arg(long, default_value_t = 20, value_name = "N")]
    count: u64,
    /// The signed checkpoint that the auditor holds; otherwise the newest one that witnesses vouch for, else the latest
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Also decide the picked decisions again, and show what came out
    #[arg(long)]
    replay: bool,
    /// File to write
    #[arg(long, short = 'o', default_value = "answer.challenge", value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    data: DataArgs,
}

/// # Errors
/// When the checkpoint is not this log's, or the service does not answer.
pub fn run(args: &ChallengeArgs) -> anyhow::Result<ExitCode> {
    let challenge = match Challenge::new(&args.nonce, args.count) {
        Ok(challenge) => challenge,
        Err(error) => return Ok(usage(&error.to_string())),
    };
    let held = args.checkpoint.as_ref().map(|path| {
        std::fs::read_to_string(path).with_context(|| format!("reading the checkpoint {}", path.display()))
    });
    let held = held.transpose()?;
    let answer = async |office: &Office| answer(office, challenge, held, args.replay).await;
    let (answer, seen) = client::with_office(&args.data.data, answer)?;
    write_whole(&args.out, answer.to_text().as_bytes())?;
    println!("wrote {} ({} entries)", args.out.display(), answer.entries.len());
    match seen {
        Some(seen) => print!("{}", seen.words(EPS)),
        None if args.replay => println!("the nonce picks no decision, so there is nothing to decide again"),
        None => {}
    }
    println!(
        "check it anywhere: lineproof verify {} --nonce {} --key log.vkey",
        args.out.display(),
        answer.challenge.nonce()
    );
    Ok(ExitCode::SUCCESS)
}

async fn answer(
    office: &Office,
    challenge: Challenge,
    held: Option<String>,
    replays: bool,
) -> anyhow::Result<(Answer, Option<Seen>)> {
    let checkpoint = match held {
        Some(held) => held,
        None => newest(office).await?,
    };
    let note = Note::parse(&checkpoint)?;
    let facts = read_checkpoint(note.text)?;
    if facts.size == 0 {
        bail!("the checkpoint covers no entry");
    }
    let indexes = challenge.indexes(note.text, facts.size);
    let (entries, proof) = prove(office, &indexes, &facts).await?;
    let is_decision = |entry: &[u8]| matches!(Entry::parse(entry), Ok(Entry::Decision(_)));
    let decisions = indexes.iter().zip(&entries).filter(|(_, entry)| is_decision(entry)).map(|(index, _)| *index);
    let decisions: Vec<u64> = decisions.collect();
    let (replays, seen) = match replays && !decisions.is_empty() {
        true => {
            let request = pb::ReplayRequest {
                which: Some(Which::Entries(pb::EntryIndexes { indexes: decisions })),
                eps: Some(EPS),
                challenge: challenge.seed(note.text).0.to_vec(),
            };
            let seen = replay::ask(office, request, |_| Ok(())).await?;
            (Some(prove_replays(office, &seen.recorded, facts.size).await?), Some(seen))
        }
        false => (None, None),
    };
    Ok((Answer { challenge, entries, proof, replays, checkpoint }, seen))
}

/// The newest checkpoint that witnesses vouch for, else the latest.
async fn newest(office: &Office) -> anyhow::Result<String> {
    let newest = office.audit().get_checkpoint(pb::GetCheckpointRequest {}).await.map_err(client::said)?.into_inner();
    Ok(if newest.witnessed.is_empty() { newest.note } else { newest.witnessed })
}

/// The stored bytes of these entries, and one proof that they stand in the tree of the checkpoint.
async fn prove(
    office: &Office,
    indexes: &[u64],
    facts: &CheckpointFacts,
) -> anyhow::Result<(Vec<Vec<u8>>, Vec<Sha256Digest>)> {
    let mut audit = office.audit();
    let (mut leaves, mut paths) = (Vec::new(), Vec::new());
    for &index in indexes {
        let request = pb::GetInclusionProofRequest { entry_index: index, tree_size: facts.size };
        let proof = audit.get_inclusion_proof(request).await.map_err(client::said)?.into_inner();
        leaves.push(Leaf { index, hash: Sha256Digest::from_slice(&proof.leaf_hash)? });
        paths.push(digests(&proof.hashes)?);
    }
    let path = |index| {
        let at = indexes.binary_search(&index).expect("a proof asks only for picked entries");
        Ok::<_, multiproof::ProofError>(paths[at].clone())
    };
    let proof = multiproof::build(indexes, facts.size, path)?;
    if multiproof::root(&leaves, facts.size, &proof)? != facts.root {
        bail!("the checkpoint of {} entries is not one of this log", facts.size);
    }
    let mut entries = Vec::new();
    for leaf in &leaves {
        // A passport is noted in the log; the entry in it is what is given away here.
        let request = pb::GetPassportRequest { of: Some(Of::EntryIndex(leaf.index)) };
        let passports = audit.get_passport(request).await.map_err(client::said)?.into_inner().passports;
        let passport = passports.first().with_context(|| format!("the service did not return entry {}", leaf.index))?;
        let entry = Passport::parse(&passport.text).context("the service's passport")?.entry;
        if leaf_hash(&entry) != leaf.hash {
            bail!("entry {} is not the one its proof is of; run `lineproof fsck`", leaf.index);
        }
        entries.push(entry);
    }
    Ok((entries, proof))
}

/// The entries that note the replays, under the first checkpoint that covers them all.
async fn prove_replays(office: &Office, recorded: &[u64], held: u64) -> anyhow::Result<Replays> {
    let last = *recorded.last().context("the service noted no replay")?;
    let checkpoint = covering(office, last).await?;
    let facts = read_checkpoint(Note::parse(&checkpoint)?.text)?;
    let (entries, proof) = prove(office, recorded, &facts).await?;
    let request = pb::GetConsistencyProofRequest { old_size: held, new_size: facts.size };
    let consistency = office.audit().get_consistency_proof(request).await.map_err(client::said)?.into_inner();
    let entries = recorded.iter().copied().zip(entries).collect();
    Ok(Replays { entries, proof, consistency: digests(&consistency.hashes)?, checkpoint })
}

/// The latest checkpoint, once it covers this entry: within a second.
async fn covering(office: &Office, index: u64) -> anyhow::Result<String> {
    let until = tokio::time::Instant::now() + COVERED_MAX;
    loop {
        let latest =
            office.audit().get_checkpoint(pb::GetCheckpointRequest {}).await.map_err(client::said)?.into_inner();
        if read_checkpoint(Note::parse(&latest.note)?.text)?.size > index {
            return Ok(latest.note);
        }
        if tokio::time::Instant::now() > until {
            bail!(
                "entry {index} has no checkpoint after {} seconds; the service's log says why",
                COVERED_MAX.as_secs()
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn digests(hashes: &[Vec<u8>]) -> anyhow::Result<Vec<Sha256Digest>> {
    Ok(hashes.iter().map(|hash| Sha256Digest::from_slice(hash)).collect::<Result<_, _>>()?)
}
