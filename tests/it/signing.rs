//! A model that is unsigned or altered is not loaded; and our signatures are those of OpenSSF's stock tool.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tonic::Code;

use crate::harness::{Plant, Service, block_on, lineproof, part, skipped, text};

const OLD: &str = "machined-surface@1.1.0";
const NEW: &str = "machined-surface@1.2.0";

/// A plant that asks for signatures, and the key that may give them.
struct Signing {
    plant: Plant,
    key: PathBuf,
    fingerprint: String,
}

impl Signing {
    /// Nothing is signed yet; there are two versions of the embedded recipe.
    fn new() -> Self {
        let plant = Plant::new();
        let key = plant.folder().join("steward.pem");
        let made = plant.run(&["model", "new-key", "--out", key.to_str().unwrap(), "--json"]);
        let made: Value = serde_json::from_slice(&made.stdout).expect("a key is made");
        let signers = plant.data().join("signers");
        fs::create_dir(&signers).unwrap();
        fs::rename(plant.folder().join("steward.pub"), signers.join("steward.pub")).unwrap();
        plant.edit_config("# signers =", "signers =");
        let (old, new) = (folder(&plant, OLD), folder(&plant, NEW));
        copy(&old, &new);
        let recipe = fs::read_to_string(old.join("recipe.toml")).unwrap();
        fs::write(new.join("recipe.toml"), recipe.replace("\"1.1.0\"", "\"1.2.0\"")).unwrap();
        Self { plant, key, fingerprint: made["fingerprint"].as_str().unwrap().to_owned() }
    }

    fn sign(&self, recipe: &str) {
        let output = self.plant.run(&["model", "sign", recipe, "--replace", "--key", self.key.to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output));
    }

    fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.plant.run(arguments);
        (output.status.code(), text(&output))
    }
}

fn folder(plant: &Plant, recipe: &str) -> PathBuf {
    plant.data().join("models").join(recipe.replace('@', "/"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() { copy(&path, &to) } else { fs::copy(&path, &to).map(drop).unwrap() }
    }
}

fn append(path: &Path, bytes: &[u8]) {
    let mut now = fs::read(path).unwrap_or_default();
    now.extend_from_slice(bytes);
    fs::write(path, now).unwrap();
}

/// The recipe that decided, or why none did.
fn inspect(service: &Service, number: u64, recipe: &str) -> Result<String, tonic::Status> {
    let asked = lineproof::edge::pb::InspectRequest { recipe: recipe.into(), ..part(number) };
    block_on(async { service.inspection().await.inspect(asked).await.map(|answer| answer.into_inner().recipe) })
}

#[test]
fn what_is_not_signed_or_altered_is_not_activated_and_the_active_recipe_keeps_serving() {
    let signing = Signing::new();
    signing.sign(OLD);
    let service = signing.plant.serve();
    assert_eq!(inspect(&service, 1, "").unwrap(), OLD);
    let activate = ["model", "activate", NEW, "--product", "demo-part"];
    let mut number = 1;
    let mut refused = |said: &str| {
        let (code, answer) = signing.run(&activate);
        assert_eq!(code, Some(1), "{answer}");
        assert!(answer.contains(said), "{said}: {answer}");
        number += 1;
        assert_eq!(inspect(&service, number, "").unwrap(), OLD, "the active one serves");
        assert_eq!(inspect(&service, number + 100, NEW).unwrap_err().code(), Code::FailedPrecondition);
    };
    refused("not signed");
    signing.sign(NEW);
    let new = folder(&signing.plant, NEW);
    let card = fs::read(new.join("MODEL_CARD.md")).unwrap();
    append(&new.join("MODEL_CARD.md"), b"better than it is\n");
    refused("altered: MODEL_CARD.md");
    fs::write(new.join("MODEL_CARD.md"), card).unwrap();
    append(&new.join("model.onnx"), b"\0");
    refused("altered: model.onnx");
    fs::copy(folder(&signing.plant, OLD).join("model.onnx"), new.join("model.onnx")).unwrap();
    append(&new.join("notes.txt"), b"later\n");
    refused("added: notes.txt");
    fs::remove_file(new.join("notes.txt")).unwrap();

    let (code, said) = signing.run(&activate);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(inspect(&service, 50, "").unwrap(), NEW);
    let (_, said) = signing.run(&["model", "list"]);
    let short = &signing.fingerprint["sha256:".len()..][..16];
    assert!(said.contains(&format!("inspects demo-part; signed by {short}")), "{said}");
    let (_, said) = signing.run(&["model", "list", "--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["recipes"][0]["signer"], signing.fingerprint);
    assert_eq!(service.stop().code, Some(0));
}

#[test]
fn a_start_loads_what_is_signed_and_refuses_the_frames_of_the_rest_with_the_reason() {
    let signing = Signing::new();
    signing.sign(OLD);
    signing.sign(NEW);
    let old = folder(&signing.plant, OLD);
    let kept = fs::read(old.join("recipe.toml")).unwrap();
    append(&old.join("recipe.toml"), b"# a comment\n");
    let service = signing.plant.serve();
    let refused = inspect(&service, 1, "").unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("altered: recipe.toml"), "{refused:?}");
    assert_eq!(inspect(&service, 2, NEW).unwrap(), NEW, "the others serve");
    assert_eq!(service.stop().code, Some(0));

    // The calibration lies elsewhere; the signed recipe names its digest.
    fs::write(old.join("recipe.toml"), kept).unwrap();
    append(&signing.plant.data().join("calibration/machined-surface-1.1.0.toml"), b"# a comment\n");
    let (code, said) = signing.run(&["model", "verify", OLD]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("machined-surface-1.1.0.toml has digest"), "{said}");
    // A key that is not asked for vouches for nothing.
    let other = signing.plant.folder().join("other.pem");
    assert!(signing.plant.run(&["model", "new-key", "--out", other.to_str().unwrap()]).status.success());
    let signed = signing.run(&[
        "model",
        "sign",
        folder(&signing.plant, NEW).to_str().unwrap(),
        "--replace",
        "--key",
        other.to_str().unwrap(),
    ]);
    assert_eq!(signed.0, Some(0), "{}", signed.1);
    let service = signing.plant.serve();
    for (number, recipe, said) in [(3, "", "has digest"), (4, NEW, "none of those asked for")] {
        let refused = inspect(&service, number, recipe).unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(said), "{refused:?}");
    }
    assert_eq!(service.stop().code, Some(0));
}

#[test]
fn without_signers_it_is_said_once_and_with_one_that_cannot_be_read_nothing_starts() {
    let plant = Plant::new();
    let ended = plant.serve().stop();
    assert_eq!(ended.log.matches("[models] signers").count(), 1, "{}", ended.log);
    plant.edit_config("# signers =", "signers =");
    let ended = plant.try_serve().err().expect("a service that does not know who may sign does not start");
    assert!(ended.log.contains("[models] signers") && ended.log.contains("signers/steward.pub"), "{}", ended.log);
    // What needs no model goes on.
    assert!(plant.run(&["history"]).status.success());
    let said = plant.run(&["model", "activate", OLD, "--product", "another-part"]);
    assert_eq!(said.status.code(), Some(1), "{}", text(&said));
    assert!(text(&said).contains("signers/steward.pub"), "{}", text(&said));
}

/// OpenSSF's `model_signing`, and a folder to sign.
struct Stock {
    program: PathBuf,
    folder: PathBuf,
    private: PathBuf,
    public: PathBuf,
    _keep: tempfile::TempDir,
}

impl Stock {
    fn new(private: &Path, public: &Path) -> Option<Self> {
        let program = std::env::var_os("LINEPROOF_MODEL_SIGNING").filter(|path| !path.is_empty())?;
        let keep = tempfile::tempdir().unwrap();
        // A folder with all that is awkward.
        let folder = keep.path().join("räcipe 1");
        copy(Path::new("models/machined-surface/1.1.0"), &folder);
        fs::create_dir_all(folder.join("sub folder/a.d")).unwrap();
        fs::create_dir(folder.join("sub folder/a")).unwrap();
        for name in
            ["sub folder/größe 1.txt", "sub folder/a.d/f", "sub folder/a/f", "sub folder/a-b", ".hidden", "日本.txt"]
        {
            fs::write(folder.join(name), name).unwrap();
        }
        fs::write(folder.join("empty"), "").unwrap();
        fs::write(folder.join(".gitignore"), "*.tmp\n").unwrap();
        fs::write(folder.join("large"), vec![7; (32 << 20) + 1]).unwrap();
        let (private, public) = (private.to_owned(), public.to_owned());
        Some(Self { program: program.into(), folder, private, public, _keep: keep })
    }

    fn run(&self, arguments: [&str; 2], key: &str, path: &Path) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).arg(&self.folder).arg("--signature").arg(self.folder.join("model.sig"));
        command.arg(key).arg(path).output().expect("model_signing runs")
    }

    fn stock_signs(&self) {
        let output = self.run(["sign", "key"], "--private_key", &self.private);
        assert!(output.status.success(), "{}", text(&output));
    }

    fn we_sign(&self) {
        let mut command = lineproof();
        command.args(["model", "sign"]).arg(&self.folder).arg("--replace").arg("--key").arg(&self.private);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    /// What both say of the folder.
    fn both_verify(&self) -> (bool, bool) {
        let stock = self.run(["verify", "key"], "--public_key", &self.public);
        let mut command = lineproof();
        let ours = command.args(["model", "verify"]).arg(&self.folder).arg("--key").arg(&self.public).output().unwrap();
        assert!(ours.status.success() || ours.status.code() == Some(1), "{}", text(&ours));
        (stock.status.success(), ours.status.success())
    }

    fn both_refuse(&self, what: &str, change: impl FnOnce(), undo: impl FnOnce()) {
        change();
        assert_eq!(self.both_verify(), (false, false), "{what}");
        undo();
        assert_eq!(self.both_verify(), (true, true), "{what}, undone");
    }
}

#[test]
fn the_stock_tool_verifies_our_signatures_and_we_its_and_both_refuse_the_same() {
    let vectors = Path::new("tests/vectors/model-signature");
    let made = tempfile::tempdir().unwrap();
    let pkcs8 = made.path().join("k.pem");
    assert!(lineproof().args(["model", "new-key", "--out"]).arg(&pkcs8).output().unwrap().status.success());
    let sec1 = (vectors.join("steward.pem"), vectors.join("steward.pub"));
    for (private, public) in [sec1, (pkcs8, made.path().join("k.pub"))] {
        let Some(stock) = Stock::new(&private, &public) else {
            return skipped("no model_signing; scripts/model-signing-env.sh installs it");
        };
        for stock_signs in [true, false] {
            if stock_signs {
                stock.stock_signs()
            } else {
                stock.we_sign()
            }
            assert_eq!(stock.both_verify(), (true, true), "signed by the stock tool: {stock_signs}");
            let path = |name: &str| stock.folder.join(name);
            for name in ["model.onnx", "sub folder/größe 1.txt", "empty", ".hidden"] {
                let bytes = fs::read(path(name)).unwrap();
                let restore = || fs::write(path(name), &bytes).unwrap();
                stock.both_refuse(name, || append(&path(name), b"x"), restore);
                stock.both_refuse(name, || fs::remove_file(path(name)).unwrap(), restore);
            }
            let remove = |name: &'static str| move || fs::remove_file(path(name)).unwrap();
            stock.both_refuse("added", || fs::write(path("sub folder/new"), "").unwrap(), remove("sub folder/new"));
            let link = || std::os::unix::fs::symlink("/etc/hostname", path("link")).unwrap();
            stock.both_refuse("a link", link, remove("link"));
            let signature = fs::read_to_string(path("model.sig")).unwrap();
            let cut =
                signature.replacen("\"sig\":\"MEU", "\"sig\":\"MEQ", 1).replacen("\"sig\":\"MEY", "\"sig\":\"MEQ", 1);
            let cut = if cut == signature { signature.replacen("\"sig\":\"MEQ", "\"sig\":\"MEU", 1) } else { cut };
            assert_ne!(cut, signature);
            let restore = || fs::write(path("model.sig"), &signature).unwrap();
            stock.both_refuse("another signature", || fs::write(path("model.sig"), &cut).unwrap(), restore);
            // What belongs to git is no part of a model.
            fs::create_dir_all(path(".git")).unwrap();
            fs::write(path(".git/HEAD"), "ref\n").unwrap();
            fs::write(path(".gitattributes"), "").unwrap();
            assert_eq!(stock.both_verify(), (true, true));
            fs::remove_dir_all(path(".git")).unwrap();
        }
        let other = Stock {
            public: if public.starts_with(vectors) { made.path().join("k.pub") } else { vectors.join("steward.pub") },
            ..stock
        };
        assert_eq!(other.both_verify(), (false, false), "another key");
    }
}
