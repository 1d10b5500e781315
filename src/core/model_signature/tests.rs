//! Signatures against `tests/vectors/model-signature`: one of ours and one of the stock tool, over the same folder.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::*;

const OURS: &[u8] = include_bytes!("../../../tests/vectors/model-signature/lineproof.sig");
const STOCK: &[u8] = include_bytes!("../../../tests/vectors/model-signature/stock.sig");
const PRIVATE: &str = include_str!("../../../tests/vectors/model-signature/steward.pem");
const PUBLIC: &str = include_str!("../../../tests/vectors/model-signature/steward.pub");

const CARD: &[u8] = include_bytes!("../../../tests/vectors/model-signature/recipe/MODEL_CARD.md");

const HINT: &str = "70221791904cf2eb7bb031f501daddf8223ac82c8633239546fc080877255874";

fn keys() -> [PublicKey; 1] {
    [PublicKey::from_pem(PUBLIC).unwrap()]
}

fn key() -> SigningKey {
    SigningKey::from_pem(PRIVATE).unwrap()
}

/// A signature over another statement: this one's, changed.
fn resigned(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut bundle: Value = serde_json::from_slice(OURS).unwrap();
    let payload = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    let mut statement: Value = serde_json::from_slice(&BASE64_STANDARD.decode(payload).unwrap()).unwrap();
    change(&mut statement);
    let payload = serde_json::to_vec(&statement).unwrap();
    let pae = [format!("DSSEv1 28 application/vnd.in-toto+json {} ", payload.len()).as_bytes(), &payload].concat();
    bundle["dsseEnvelope"]["payload"] = BASE64_STANDARD.encode(&payload).into();
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = BASE64_STANDARD.encode(key().sign(&pae)).into();
    serde_json::to_vec(&bundle).unwrap()
}

#[test]
fn the_stock_tools_signature_says_the_same_as_ours_and_ours_is_the_same_every_time() {
    let (ours, stock) = (open(OURS, &keys()).unwrap(), open(STOCK, &keys()).unwrap());
    assert_eq!(ours.manifest.files, stock.manifest.files);
    assert_eq!((ours.signer, ours.manifest.root()), (stock.signer, stock.manifest.root()));
    let sorted = |manifest: &Manifest| {
        let mut names: Vec<_> = manifest.ignored.iter().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(sorted(&ours.manifest), sorted(&stock.manifest));
    let names: Vec<_> = ours.manifest.files.keys().map(ResourceName::as_str).collect();
    assert_eq!(names, ["MODEL_CARD.md", "empty", "model.onnx", "recipe.toml", "sub folder/größe 1.txt"]);
    assert_eq!(ours.manifest.files[&"MODEL_CARD.md".parse().unwrap()], Sha256Digest::of(CARD));
    assert_eq!(sign(&ours.manifest, &key()).unwrap(), OURS);
}

#[test]
fn no_changed_byte_of_a_signature_changes_what_it_says() {
    let said = open(OURS, &keys()).unwrap();
    let mut refused = 0;
    for at in 0..OURS.len() {
        let mut bytes = OURS.to_vec();
        bytes[at] ^= 1 << (at % 8);
        match open(&bytes, &keys()) {
            Err(_) => refused += 1,
            // Such as a letter of `keyid`, which nothing is read from.
            Ok(found) => assert_eq!(found, said, "byte {at}"),
        }
    }
    assert!(refused > OURS.len() - 40, "{refused} of {}", OURS.len());
}

#[test]
fn a_signature_of_another_key_or_method_names_what_was_asked_for() {
    let other = SigningKey::from_random(&[7; 32]).unwrap();
    let error = open(OURS, &[other.public()]).unwrap_err().to_string();
    assert!(error.contains(&short(keys()[0].fingerprint())) && error.contains(&short(other.public().fingerprint())));
    // The hint may say what it likes: the key it names decides.
    let hint = keys()[0].fingerprint().hex();
    let forged = String::from_utf8(OURS.to_vec()).unwrap().replace(&hint, &other.public().fingerprint().hex());
    assert!(matches!(open(forged.as_bytes(), &[other.public(), keys()[0].clone()]), Err(SignatureError::Signature)));
    assert!(matches!(open(OURS, &[]), Err(SignatureError::Key { .. })));

    let certified = String::from_utf8(OURS.to_vec()).unwrap();
    let certified =
        certified.replace(&format!(r#""publicKey":{{"hint":"{hint}"}}"#), r#""certificate":{"rawBytes":""}"#);
    assert!(matches!(open(certified.as_bytes(), &keys()), Err(SignatureError::Method)));
    let newer = String::from_utf8(OURS.to_vec()).unwrap().replace("v0.3", "v0.9");
    assert!(matches!(open(newer.as_bytes(), &keys()), Err(SignatureError::Type { what: "media type", .. })));
    let mut twice: Value = serde_json::from_slice(OURS).unwrap();
    let signature = twice["dsseEnvelope"]["signatures"][0].clone();
    twice["dsseEnvelope"]["signatures"] = json!([signature, signature]);
    assert!(open(twice.to_string().as_bytes(), &keys()).is_err(), "a bundle has one signature");
    assert!(matches!(open(&vec![b' '; SIGNATURE_BYTES_MAX + 1], &keys()), Err(SignatureError::TooLong)));
}

#[test]
fn what_a_signer_may_not_say_is_refused_though_the_signature_verifies() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 13] = [
        ("statement type", |it| it["_type"] = "https://in-toto.io/Statement/v2".into()),
        ("predicate type", |it| it["predicateType"] = "https://model_signing/Digests/v0.1".into()),
        ("method", |it| it["predicate"]["serialization"]["method"] = "shards".into()),
        ("hash type", |it| it["predicate"]["serialization"]["hash_type"] = "blake3".into()),
        ("1 subject", |it| it["subject"] = json!([])),
        ("no file below", |it| it["predicate"]["resources"][0]["name"] = "../model.onnx".into()),
        ("no file below", |it| it["predicate"]["serialization"]["ignore_paths"][0] = "/".into()),
        ("not one of SHA-256", |it| it["predicate"]["resources"][0]["algorithm"] = "blake3".into()),
        ("not one of SHA-256", |it| it["predicate"]["resources"][0]["digest"] = "00".into()),
        ("not that of the files", |it| it["predicate"]["resources"][0]["digest"] = "0".repeat(64).into()),
        ("not that of the files", |it| it["subject"][0]["digest"]["sha256"] = "0".repeat(64).into()),
        ("twice", |it| it["predicate"]["resources"][1]["name"] = "MODEL_CARD.md".into()),
        ("more than 4096 files", |it| {
            let one = it["predicate"]["resources"][0].clone();
            // Too many for a file of a mebibyte; the list is counted all the same.
            it["predicate"]["resources"] = vec![json!({ "name": "", "algorithm": "", "digest": "" }); 4097].into();
            it["predicate"]["resources"][0] = one;
        }),
    ];
    assert!(open(&resigned(|_| {}), &keys()).is_ok());
    assert!(open(&resigned(|it| it["predicate"]["of later versions"] = 1.into()), &keys()).is_ok());
    for (said, change) in cases {
        let error = open(&resigned(change), &keys()).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn other_writers_have_other_orders_and_leave_out_what_says_nothing() {
    let said = open(OURS, &keys()).unwrap();
    let bundle = |change: fn(&mut Value)| {
        let mut bundle: Value = serde_json::from_slice(OURS).unwrap();
        change(&mut bundle);
        open(&serde_json::to_vec(&bundle).unwrap(), &keys())
    };
    assert_eq!(bundle(|it| it["dsseEnvelope"]["signatures"][0]["keyid"] = Value::Null).unwrap(), said);
    assert_eq!(bundle(|it| it["verificationMaterial"] = json!({ "publicKey": { "hint": HINT } })).unwrap(), said);
    // Before the hint there was the key, which nobody has a reason to believe.
    let before =
        json!({ "publicKey": { "rawBytes": "AAAA", "keyDetails": "PKIX_ECDSA_P256_SHA_256" }, "tlogEntries": [] });
    let mut old: Value = serde_json::from_slice(OURS).unwrap();
    old["verificationMaterial"] = before;
    let old = serde_json::to_vec(&old).unwrap();
    let other = SigningKey::from_random(&[7; 32]).unwrap().public();
    assert_eq!(open(&old, &[other.clone(), keys()[0].clone()]).unwrap(), said);
    assert!(matches!(open(&old, &[other]), Err(SignatureError::Signature)));

    let resorted = resigned(|it| {
        let resources = it["predicate"]["resources"].as_array_mut().unwrap();
        resources.reverse();
        let digests = resources.iter().map(|one| one["digest"].as_str().unwrap());
        let bytes: Vec<u8> = digests.flat_map(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()).collect();
        it["subject"][0]["digest"]["sha256"] = Sha256Digest::of(&bytes).hex().into();
    });
    assert_eq!(open(&resorted, &keys()).unwrap(), said);
}

#[test]
fn what_is_ignored_by_default_is_ignored_unless_it_was_signed() {
    let ignored = |bytes: &[u8]| open(bytes, &keys()).unwrap().manifest.ignored;
    let silent = resigned(|it| drop(it["predicate"]["serialization"].as_object_mut().unwrap().remove("ignore_paths")));
    assert_eq!(ignored(&silent), IGNORED.map(|name| name.parse().unwrap()));
    let mut manifest = Manifest::default();
    manifest.files.insert(".git/config".parse().unwrap(), Sha256Digest([1; 32]));
    let signed = sign(&manifest, &key()).unwrap();
    assert_eq!(ignored(&signed), [".gitattributes", ".github", ".gitignore"].map(|name| name.parse().unwrap()));
    let slash = resigned(|it| it["predicate"]["serialization"]["ignore_paths"] = json!(["cache/", ".git/"]));
    assert!(ignored(&slash).contains(&"cache".parse().unwrap()));
}

#[test]
fn a_folder_that_no_verifier_would_read_is_not_signed() {
    let files = |count: usize, name: &str| {
        let name = |number| format!("{number}{name}").parse().unwrap();
        (0..count).map(|number| (name(number), Sha256Digest([0; 32]))).collect::<BTreeMap<_, _>>()
    };
    let manifest = |files| Manifest { files, ..Manifest::default() };
    let most = sign(&manifest(files(RESOURCES_MAX, "-with-a-name-of-a-usual-length.txt")), &key()).unwrap();
    assert_eq!(open(&most, &keys()).unwrap().manifest.files.len(), RESOURCES_MAX);
    assert!(matches!(sign(&manifest(files(RESOURCES_MAX + 1, "")), &key()), Err(SignatureError::TooMany)));
    assert!(matches!(sign(&manifest(files(4000, &"x".repeat(150))), &key()), Err(SignatureError::TooLong)));
}

#[test]
fn keys_are_read_as_openssl_writes_them_and_others_say_what_they_are() {
    // `openssl ecparam -name prime256v1 -genkey` writes the parameters before the key.
    let with_parameters =
        format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{PRIVATE}");
    let public = keys()[0].clone();
    assert_eq!(SigningKey::from_pem(&with_parameters).unwrap().public(), public);
    let pkcs8 = key().to_pem();
    assert!(pkcs8.starts_with("-----BEGIN PRIVATE KEY-----"));
    assert_eq!(SigningKey::from_pem(&pkcs8).unwrap().public(), public);
    assert_eq!(SigningKey::from_pem(&pkcs8.replace('\n', "\r\n")).unwrap().public(), public);
    assert_eq!(public.to_pem(), PUBLIC);
    assert_eq!(public.fingerprint(), Sha256Digest::of(PUBLIC.as_bytes()));

    assert_eq!(PublicKey::from_pem(PRIVATE).unwrap_err(), KeyError::PrivateForPublic);
    assert_eq!(PublicKey::from_pem("").unwrap_err(), KeyError::NotPublic);
    assert_eq!(SigningKey::from_pem(PUBLIC).err(), Some(KeyError::NotPrivate));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIH\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert_eq!(SigningKey::from_pem(encrypted).err(), Some(KeyError::Encrypted));
    let of_old = PRIVATE.replace("KEY-----\nM", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nM");
    assert_eq!(SigningKey::from_pem(&of_old).err(), Some(KeyError::Encrypted));
    assert_eq!(SigningKey::from_pem(P384_PRIVATE).err(), Some(KeyError::PrivateCurve));
    assert_eq!(PublicKey::from_pem(P384_PUBLIC).unwrap_err(), KeyError::PublicCurve);
}

/// A key of another curve, of nobody.
const P384_PRIVATE: &str = "-----BEGIN EC PRIVATE KEY-----\nMIGkAgEBBDBnFT9PUJj7f+EuLl5ZrmnQYX7hPypn0heJZN5J0ByflPpaW9WSJk1M\nok10WU7DeJ2gBwYFK4EEACKhZANiAAQnZdMuFT7QbynJXy/ebgNSjGYqQStdz39D\nWTkxVHM95UKaOEO4Qng3BVujy79HmNeuSVo6ddYV/K75ZixdinXNmO2Ti5hkLdR7\nnk/uO6bKS8dtVquZps9bMhkdPCS1SFc=\n-----END EC PRIVATE KEY-----\n";
const P384_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEJ2XTLhU+0G8pyV8v3m4DUoxmKkErXc9/\nQ1k5MVRzPeVCmjhDuEJ4NwVbo8u/R5jXrklaOnXWFfyu+WYsXYp1zZjtk4uYZC3U\ne55P7jumykvHbVarmabPWzIZHTwktUhX\n-----END PUBLIC KEY-----\n";
