//! Recipe folders on a real disk, signed and then changed.

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    keys,
    signed::{FolderError, SignedFolder, digest, sign},
    *,
};
use crate::core::model_signature::{SIGNATURE_FILE, SigningKey};

const VECTORS: &str = "tests/vectors/model-signature";

/// The folder of the vectors, copied; without a signature.
struct Copied {
    _keep: TempDir,
    folder: PathBuf,
    keys: [PublicKey; 1],
    private: SigningKey,
}

impl Copied {
    fn new() -> Self {
        let keep = TempDir::new().unwrap();
        let folder = keep.path().join("recipe");
        copy(&Path::new(VECTORS).join("recipe"), &folder);
        let key = |name: &str| Path::new(VECTORS).join(name);
        let public = keys::read_public(&key("steward.pub")).unwrap();
        Self { folder, keys: [public], private: keys::read_private(&key("steward.pem")).unwrap(), _keep: keep }
    }

    fn signed() -> Self {
        let copied = Self::new();
        sign(&copied.folder, &copied.private).unwrap();
        copied
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    fn verify(&self) -> Result<(), FolderError> {
        SignedFolder::open(&self.folder, &self.keys)?.finish().map(drop)
    }

    fn load(&self) -> Result<LoadedRecipe, String> {
        load_folder(&self.folder, None, Some(&self.keys))
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() { copy(&path, &to) } else { fs::copy(&path, &to).map(drop).unwrap() }
    }
}

#[test]
fn a_folder_is_loaded_by_our_signature_and_by_the_stock_tools() {
    for signature in ["lineproof.sig", "stock.sig"] {
        let copied = Copied::new();
        fs::copy(Path::new(VECTORS).join(signature), copied.path(SIGNATURE_FILE)).unwrap();
        assert_eq!(copied.load().unwrap().signer, Some(copied.keys[0].fingerprint()), "{signature}");
    }
    let copied = Copied::signed();
    assert_eq!(
        fs::read(copied.path(SIGNATURE_FILE)).unwrap(),
        fs::read(Path::new(VECTORS).join("lineproof.sig")).unwrap()
    );
    // Nothing but the signature is new, beside the folder neither.
    assert_eq!(fs::read_dir(copied.folder.parent().unwrap()).unwrap().count(), 1);
    assert_eq!(load_folder(&copied.folder, None, None).unwrap().signer, None);
}

#[test]
fn every_file_counts_whether_the_recipe_names_it_or_not() {
    for file in ["recipe.toml", "model.onnx", "MODEL_CARD.md", "empty", "sub folder/größe 1.txt"] {
        let copied = Copied::signed();
        let bytes = fs::read(copied.path(file)).unwrap();
        fs::write(copied.path(file), [&bytes[..], b"\n"].concat()).unwrap();
        let error = copied.load().unwrap_err();
        assert!(
            error.contains(&format!("altered: {file};")) && error.contains("release and sign a new version"),
            "{error}"
        );
        fs::remove_file(copied.path(file)).unwrap();
        let error = copied.verify().unwrap_err().to_string();
        assert!(error.contains(&format!("missing: {file};")), "{error}");
        copied.load().unwrap_err();
        fs::write(copied.path(file), bytes).unwrap();
        copied.load().unwrap();
    }
    for file in
        ["notes.txt", "sub folder/x", ".hidden", "model.sig.old", "sub folder/model.sig", "sub folder/.gitignore"]
    {
        let copied = Copied::signed();
        fs::write(copied.path(file), "").unwrap();
        // A model.sig below is no part of ours, but of the stock tool's manifest; so it is of ours.
        let error = copied.load().unwrap_err();
        assert!(error.contains(&format!("added: {file};")), "{error}");
    }
}

#[test]
fn what_belongs_to_git_may_change_and_empty_folders_say_nothing() {
    let copied = Copied::signed();
    fs::create_dir_all(copied.path(".git/objects")).unwrap();
    fs::write(copied.path(".git/objects/1"), "1").unwrap();
    fs::write(copied.path(".gitignore"), "other").unwrap();
    fs::create_dir(copied.path("later")).unwrap();
    copied.load().unwrap();
}

#[test]
fn links_and_pipes_are_refused_wherever_they_lead() {
    let copied = Copied::signed();
    let elsewhere = copied.folder.with_extension("model");
    fs::rename(copied.path("model.onnx"), &elsewhere).unwrap();
    symlink(&elsewhere, copied.path("model.onnx")).unwrap();
    assert!(matches!(copied.verify(), Err(FolderError::Link(_))));
    assert!(copied.load().unwrap_err().contains("is a link"));
    assert!(matches!(sign(&copied.folder, &copied.private), Err(FolderError::Link(_))));
    fs::remove_file(copied.path("model.onnx")).unwrap();
    fs::rename(&elsewhere, copied.path("model.onnx")).unwrap();
    copied.load().unwrap();

    symlink("/etc", copied.path("etc")).unwrap();
    assert!(matches!(copied.verify(), Err(FolderError::Link(_))));
    fs::remove_file(copied.path("etc")).unwrap();
    fs::remove_file(copied.path("model.onnx")).unwrap();
    let pipe = copied.path("model.onnx");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    // Whoever opened it as a file would wait for ever.
    assert!(copied.load().unwrap_err().contains("neither a file nor a folder"));
    assert!(matches!(copied.verify(), Err(FolderError::Special(_))));
    fs::remove_file(&pipe).unwrap();
    let _socket = UnixListener::bind(&pipe).unwrap();
    assert!(matches!(copied.verify(), Err(FolderError::Special(_))));
    // The folder itself may be reached by a link: its files are what was signed.
    let copied = Copied::signed();
    let link = copied.folder.with_extension("link");
    symlink(&copied.folder, &link).unwrap();
    load_folder(&link, None, Some(&copied.keys)).unwrap();
}

#[test]
fn an_unsigned_folder_says_how_it_is_signed_and_one_signed_by_another_key_says_by_which() {
    let copied = Copied::new();
    let error = copied.load().unwrap_err();
    assert!(error.contains("not signed") && error.contains("`lineproof model sign "), "{error}");
    let other = SigningKey::from_random(&[9; 32]).unwrap();
    sign(&copied.folder, &other).unwrap();
    let error = copied.load().unwrap_err();
    assert!(error.contains(&crate::core::model_signature::short(other.public().fingerprint())), "{error}");
    // No key at all asks for a signature, too, and takes none.
    load_folder(&copied.folder, None, Some(&[])).unwrap_err();
    sign(&copied.folder, &copied.private).unwrap();
    copied.load().unwrap();
}

#[test]
fn a_file_the_recipe_needs_cannot_be_left_out_of_what_is_signed() {
    use crate::core::model_signature::{self, Manifest};

    let copied = Copied::signed();
    let bytes = fs::read(copied.path(SIGNATURE_FILE)).unwrap();
    let mut manifest: Manifest = model_signature::open(&bytes, &copied.keys).unwrap().manifest;
    let model = "model.onnx".parse().unwrap();
    manifest.files.remove(&model);
    manifest.ignored.push(model);
    fs::write(copied.path(SIGNATURE_FILE), model_signature::sign(&manifest, &copied.private).unwrap()).unwrap();
    copied.verify().unwrap();
    let error = copied.load().unwrap_err();
    assert!(error.contains("model.onnx is no part of what key"), "{error}");
}

#[test]
fn folders_have_bounds() {
    let copied = Copied::new();
    for number in 0..crate::core::model_signature::RESOURCES_MAX {
        fs::write(copied.path(&number.to_string()), "").unwrap();
    }
    assert!(matches!(sign(&copied.folder, &copied.private), Err(FolderError::TooMany(_))));
    let copied = Copied::signed();
    fs::write(copied.path(SIGNATURE_FILE), vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(matches!(copied.verify(), Err(FolderError::FileTooLarge { .. })));
    let (model, bytes) = (copied.path("model.onnx"), fs::metadata(copied.path("model.onnx")).unwrap().len());
    let mut left = 2 * bytes - 1;
    assert!(digest(&model, &mut left).unwrap().is_some());
    assert_eq!((left, digest(&model, &mut left).unwrap()), (bytes - 1, None));
}

#[test]
fn a_new_key_is_for_its_owner_alone_and_overwrites_nothing() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = TempDir::new().unwrap();
    let (private, public) = (folder.path().join("k.pem"), folder.path().join("k.pub"));
    let made = keys::create(&private, &public).unwrap();
    assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(keys::read_private(&private).unwrap().public(), made);
    assert_eq!(keys::read_public(&public).unwrap(), made);
    keys::create(&private, &public).unwrap_err();
    keys::create(&folder.path().join("other.pem"), &public).unwrap_err();
    assert!(!folder.path().join("other.pem").exists());
    assert_eq!(keys::read_public(&public).unwrap(), made);
}
