//! `lineproof challenge`: answers an outsider who picks entries at random, without a say in which.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Args;

use super::{
    cli::{DataArgs, usage},
    client::{self, Office},
    evidence::write_whole,
};
use crate::{
    core::{
        export::{
            challenge::{Answer, Challenge},
            keys::{Note, read_checkpoint},
            multiproof::{self, Leaf},
        },
        lineage::{passport::Passport, tree::leaf_hash},
    },
    edge::pb::{self, get_passport_request::Of},
    types::Sha256Digest,
};

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
    let answer = client::with_office(&args.data.data, async |office| answer(office, challenge, held).await)?;
    write_whole(&args.out, answer.to_text().as_bytes())?;
    println!("wrote {} ({} entries)", args.out.display(), answer.entries.len());
    println!(
        "check it anywhere: lineproof verify {} --nonce {} --key log.vkey",
        args.out.display(),
        answer.challenge.nonce()
    );
    Ok(ExitCode::SUCCESS)
}

async fn answer(office: &Office, challenge: Challenge, held: Option<String>) -> anyhow::Result<Answer> {
    let mut audit = office.audit();
    let checkpoint = match held {
        Some(held) => held,
        None => {
            let newest = audit.get_checkpoint(pb::GetCheckpointRequest {}).await.map_err(client::said)?.into_inner();
            if newest.witnessed.is_empty() { newest.note } else { newest.witnessed }
        }
    };
    let note = Note::parse(&checkpoint)?;
    let facts = read_checkpoint(note.text)?;
    if facts.size == 0 {
        bail!("the checkpoint covers no entry");
    }
    let indexes = challenge.indexes(note.text, facts.size);
    let (mut leaves, mut paths) = (Vec::new(), Vec::new());
    for &index in &indexes {
        let request = pb::GetInclusionProofRequest { entry_index: index, tree_size: facts.size };
        let proof = audit.get_inclusion_proof(request).await.map_err(client::said)?.into_inner();
        let path: Result<Vec<Sha256Digest>, _> =
            proof.hashes.iter().map(|hash| Sha256Digest::from_slice(hash)).collect();
        leaves.push(Leaf { index, hash: Sha256Digest::from_slice(&proof.leaf_hash)? });
        paths.push(path?);
    }
    let path = |index| {
        let at = indexes.binary_search(&index).expect("a proof asks only for picked entries");
        Ok::<_, multiproof::ProofError>(paths[at].clone())
    };
    let proof = multiproof::build(&indexes, facts.size, path)?;
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
    Ok(Answer { challenge, entries, proof, checkpoint })
}
