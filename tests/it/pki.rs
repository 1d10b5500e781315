//! Plant IT makes its own authority, and strangers' tools believe what it issues.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{
    harness::{Plant, lineproof, skipped, text},
    syscalls::has_strace,
};

/// A machine in the office, with an authority on it.
struct Office(TempDir);

impl Office {
    fn new() -> Self {
        let office = Self(TempDir::new().unwrap());
        office.good(&["init", "ca", "--trust-domain", "plant.example", "--name", "Werk Nord CA"]);
        office
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pki(&self, arguments: &[&str]) -> Output {
        lineproof().arg("pki").args(arguments).current_dir(self.0.path()).output().unwrap()
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.pki(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    /// Runs what must be refused with this exit status, and what it says.
    fn refused(&self, status: i32, says: &str, arguments: &[&str]) {
        let before = self.register();
        let output = self.pki(arguments);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?} does not say {says:?}: {said}");
        assert_eq!(self.register(), before, "{arguments:?}");
    }

    fn register(&self) -> String {
        fs::read_to_string(self.at("ca/issued.json")).unwrap()
    }

    fn records(&self) -> Vec<serde_json::Value> {
        let register: serde_json::Value = serde_json::from_str(&self.register()).unwrap();
        register["issued"].as_array().unwrap().clone()
    }

    /// Whatever openssl says, and whether it is content.
    fn openssl(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("openssl").args(arguments).current_dir(self.0.path()).output().unwrap();
        (output.status.success(), text(&output))
    }

    fn openssl_good(&self, arguments: &[&str]) -> String {
        let (good, said) = self.openssl(arguments);
        assert!(good, "openssl {arguments:?}: {said}");
        said
    }

    /// `openssl verify` as a TLS peer of this purpose would, with the revocation list.
    fn verify(&self, purpose: &str, certificate: &str) -> (bool, String) {
        let (ca, crl) = ("ca/ca.pem", "ca/clients.crl");
        let with = ["-x509_strict", "-crl_check", "-CAfile", ca, "-CRLfile", crl, "-purpose", purpose];
        self.openssl(&[&["verify"], &with[..], &[certificate]].concat())
    }
}

fn has_openssl() -> bool {
    let has = Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
    if !has {
        skipped("openssl is not installed: nobody else looks at the certificates");
    }
    has
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn openssl_believes_what_the_authority_issues_and_only_for_what_it_is() {
    if !has_openssl() {
        return;
    }
    let office = Office::new();
    for (name, wanted) in [("ca", 0o700), ("ca/ca.key", 0o600)] {
        assert_eq!(mode(&office.at(name)), wanted, "{name}");
    }
    let said = office.openssl_good(&["x509", "-in", "ca/ca.pem", "-noout", "-text"]);
    for part in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "CN = Werk Nord CA", "ecdsa-with-SHA256"] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let said = office.good(&[
        "issue",
        "ca",
        "server",
        "--dns",
        "inspect.plant.example",
        "localhost",
        "--ip",
        "127.0.0.1",
        "--ip",
        "::1",
        "--out",
        "server",
    ]);
    assert!(said.contains("certificate = \"tls/inspect.plant.example.pem\"") && said.contains("client_ca"), "{said}");
    assert_eq!(mode(&office.at("server/inspect.plant.example.key")), 0o600);
    let server = "server/inspect.plant.example.pem";
    assert!(office.verify("sslserver", server).0, "{}", office.verify("sslserver", server).1);
    assert!(!office.verify("sslclient", server).0, "a server is no client");
    let said = office.openssl_good(&["x509", "-in", server, "-noout", "-text"]);
    let names = "DNS:inspect.plant.example, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1";
    for part in [names, "TLS Web Server Authentication", "Digital Signature", "CA:FALSE", "prime256v1"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for (flag, name) in [("-verify_hostname", "inspect.plant.example"), ("-verify_ip", "127.0.0.1")] {
        office.openssl_good(&["verify", "-CAfile", "server/ca.pem", flag, name, server]);
    }
    assert!(!office.openssl(&["verify", "-CAfile", "server/ca.pem", "-verify_hostname", "other.example", server]).0);

    let said = office.good(&["issue", "ca", "station", "line-1", "station-1", "--out", "station"]);
    assert!(said.contains("--cert line-1-station-1.pem"), "{said}");
    let station = "station/line-1-station-1.pem";
    assert!(office.verify("sslclient", station).0, "{}", office.verify("sslclient", station).1);
    assert!(!office.verify("sslserver", station).0, "a station is no server");
    let said = office.openssl_good(&["x509", "-in", station, "-noout", "-text"]);
    for part in
        ["URI:spiffe://plant.example/station/line-1/station-1", "TLS Web Client Authentication", "Digital Signature"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }

    office.good(&[
        "issue",
        "ca",
        "person",
        "a.huber",
        "--role",
        "auditor",
        "qa",
        "reviewer",
        "--common-name",
        "Huber, Anna / QS",
        "--out",
        "anna",
    ]);
    let said =
        office.openssl_good(&["x509", "-in", "anna/a.huber.pem", "-noout", "-subject", "-nameopt", "multiline,utf8"]);
    for part in ["= qa\n", "= auditor\n", "= reviewer\n", "= Huber, Anna / QS"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(said.matches("organizationalUnitName").count(), 3, "{said}");

    // The record says what openssl says.
    let fingerprint = office.openssl_good(&["x509", "-in", station, "-noout", "-fingerprint", "-sha256", "-serial"]);
    let record = &office.records()[1];
    let sha256 = record["sha256"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    assert!(fingerprint.replace(':', "").to_lowercase().contains(sha256), "{fingerprint} {record}");
    assert!(
        fingerprint.to_lowercase().contains(&format!("serial={}", record["serial"].as_str().unwrap())),
        "{fingerprint}"
    );
}

#[test]
fn a_revoked_certificate_is_refused_and_a_renewed_one_is_not() {
    if !has_openssl() {
        return;
    }
    let office = Office::new();
    let issue = ["issue", "ca", "station", "line-1", "station-1", "--out"];
    office.good(&[&issue[..], &["old"]].concat());
    let said = office.good(&[&issue[..], &["new"]].concat());
    assert!(said.contains("--reason superseded"), "a renewal says what to do with the one before: {said}");
    office.refused(1, "means 2 certificates", &["revoke", "ca", "line-1/station-1"]);
    let serial = office.records()[0]["serial"].as_str().unwrap().to_owned();

    let said = office.good(&["revoke", "ca", &serial, "--reason", "key_compromise"]);
    assert!(said.contains("tls/clients.crl"), "{said}");
    let (good, said) = office.verify("sslclient", "old/line-1-station-1.pem");
    assert!(!good && said.contains("certificate revoked"), "{said}");
    assert!(office.verify("sslclient", "new/line-1-station-1.pem").0);
    let said = office.openssl_good(&["crl", "-in", "ca/clients.crl", "-noout", "-text", "-CAfile", "ca/ca.pem"]);
    for part in ["verify OK", "Version 2", "Key Compromise", "Authority Key Identifier", &serial.to_uppercase()] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let number = |office: &Office| {
        let said = office.openssl_good(&["crl", "-in", "ca/clients.crl", "-noout", "-crlnumber"]);
        u64::from_str_radix(said.trim().trim_start_matches("crlNumber=0x"), 16).expect("a number")
    };
    assert_eq!(number(&office), 2);

    // Again changes nothing but the list's number; so does renewing it.
    let said = office.good(&["revoke", "ca", &serial, "--reason", "superseded"]);
    assert!(said.contains("was revoked before"), "{said}");
    assert_eq!(office.records()[0]["revoked"]["reason"], "key_compromise");
    office.good(&["crl", "ca", "--days", "7"]);
    assert_eq!(number(&office), 4);
    // A name means what is in force.
    office.good(&["revoke", "ca", "spiffe://plant.example/station/line-1/station-1"]);
    assert!(!office.verify("sslclient", "new/line-1-station-1.pem").0);
    office.refused(1, "is in the register", &["revoke", "ca", "line-9/station-1"]);
}

#[test]
fn a_request_of_openssl_is_signed_for_whom_the_command_line_says() {
    if !has_openssl() {
        return;
    }
    let office = Office::new();
    let request = |curve: &str, name: &str| {
        let curve = format!("ec_paramgen_curve:{curve}");
        let (key, csr) = (format!("{name}.key"), format!("{name}.csr"));
        let own = ["req", "-new", "-newkey", "ec", "-pkeyopt", &curve, "-nodes", "-keyout", &key, "-out", &csr];
        let names = ["-subj", "/OU=admin/CN=me", "-addext", "subjectAltName=URI:spiffe://plant.example/person/boss"];
        office.openssl_good(&[&own[..], &names[..]].concat());
    };
    request("prime256v1", "own");
    let issue = ["issue", "ca", "station", "line-1", "station-1", "--out"];
    office.good(&[&issue[..], &["out", "--csr", "own.csr"]].concat());
    let station = "out/line-1-station-1.pem";
    assert!(!office.at("out/line-1-station-1.key").exists());
    assert!(office.verify("sslclient", station).0);
    let said = office.openssl_good(&["x509", "-in", station, "-noout", "-text"]);
    assert!(said.contains("/station/line-1/station-1") && !said.contains("boss") && !said.contains("admin"), "{said}");
    let keys = |from: &[&str]| office.openssl_good(&[from, &["-pubkey", "-noout"]].concat());
    assert_eq!(keys(&["x509", "-in", station]), keys(&["req", "-in", "own.csr"]));

    request("secp384r1", "long");
    office.refused(1, "not ECDSA P-256", &[&issue[..], &["b", "--csr", "long.csr"]].concat());
    // A request whose names somebody changed on the way.
    let der = office.openssl(&["req", "-in", "own.csr", "-outform", "DER", "-out", "own.der"]);
    assert!(der.0);
    let mut bytes = fs::read(office.at("own.der")).unwrap();
    let at = bytes.windows(5).position(|window| window == b"admin").unwrap();
    bytes[at] = b'b';
    fs::write(office.at("bent.der"), bytes).unwrap();
    office.openssl_good(&["req", "-inform", "DER", "-in", "bent.der", "-out", "bent.csr"]);
    office.refused(1, "not signed by its own key", &[&issue[..], &["c", "--csr", "bent.csr"]].concat());
    office.refused(1, "no certificate request", &[&issue[..], &["d", "--csr", "ca/ca.pem"]].concat());
    fs::write(office.at("huge.csr"), vec![b'x'; 17 << 10]).unwrap();
    office.refused(1, "more than 16384 bytes", &[&issue[..], &["e", "--csr", "huge.csr"]].concat());
}

#[test]
fn what_would_be_wrong_is_refused_before_anything_is_issued() {
    let office = Office::new();
    office.good(&["issue", "ca", "person", "anna", "--role", "qa", "--out", "anna"]);
    let person = |rest: &[&'static str]| [&["issue", "ca", "person"], rest, &["--out", "x"]].concat();
    office.refused(1, "is there already", &["issue", "ca", "person", "anna", "--role", "qa", "--out", "anna"]);
    office.refused(2, "never has role line", &person(&["bert", "--role", "line"]));
    office.refused(2, "\"boss\" is no role", &person(&["bert", "--role", "boss"]));
    office.refused(2, "a name is 1 to 64", &person(&["../bert"]));
    office.refused(2, "line", &["issue", "ca", "station", "li/ne", "a", "--out", "x"]);
    office.refused(2, "must not be", &["issue", "ca", "station", "..", "a", "--out", "x"]);
    office.refused(2, "needs 1 to 32 addresses", &["issue", "ca", "server", "--out", "x"]);
    office.refused(2, "a DNS name", &["issue", "ca", "server", "--dns", "*.plant.example", "--out", "x"]);
    office.refused(2, "3652", &person(&["bert", "--days", "3653"]));
    office.good(&["init", "short", "--trust-domain", "plant.example", "--years", "1"]);
    office.refused(1, "give at most --days 36", &["issue", "short", "person", "bert", "--out", "x"]);
    office.refused(1, "the authority's own", &["issue", "ca", "person", "ca", "--out", "x"]);
    office.refused(1, "is there already", &["init", "ca", "--trust-domain", "plant.example"]);
    office.refused(2, "a trust domain", &["init", "other", "--trust-domain", "Plant Example"]);
    office.good(&["init", "other", "--trust-domain", "plant.example"]);
    office.refused(1, "of another authority", &["issue", "other", "person", "bert", "--out", "anna"]);
    office.refused(1, "pki init", &["list", "nowhere"]);
    // Somebody else is at it.
    let held = fs::File::open(office.at("ca")).unwrap();
    held.lock().unwrap();
    office.refused(1, "another command changes", &person(&["bert"]));
    office.refused(1, "another command changes", &["revoke", "ca", "anna"]);
    drop(held);
    // A key that is not the certificate's signs nothing.
    fs::copy(office.at("other/ca.key"), office.at("ca/ca.key")).unwrap();
    office.refused(1, "not that of the certificate", &person(&["bert"]));
}

#[test]
fn the_list_says_what_ends_and_fails_when_something_is_over() {
    let office = Office::new();
    assert!(office.good(&["list", "ca"]).contains("nothing was issued yet"));
    for (name, days) in [("today", "1"), ("week", "6"), ("month", "20"), ("year", "397")] {
        office.good(&["issue", "ca", "service", name, "--role", "line", "--days", days, "--out", "x"]);
    }
    let said = office.good(&["list", "ca"]);
    for (name, mark) in [("today", "WITHIN A DAY"), ("week", "7 DAYS"), ("month", "30 DAYS"), ("year", " 39")] {
        let line = said.lines().find(|line| line.contains(name)).unwrap();
        assert!(line.contains(mark), "{line}");
    }
    // As if it were two days later: the record's times are moved.
    let today = office.records()[0]["not_after"].as_str().unwrap().to_owned();
    let register = office.register().replace(&today, "2026-01-02T00:00:00.000000000Z");
    fs::write(office.at("ca/issued.json"), register).unwrap();
    let output = office.pki(&["list", "ca", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed["certificates"][0]["state"], "over");
    assert_eq!(listed["certificates"][1]["ends_within_days"], 7);
    assert!(listed["warnings"][0].as_str().unwrap().contains("service today"), "{listed}");
    // Renewed: the old one may be over.
    office.good(&["issue", "ca", "service", "today", "--role", "line", "--out", "y"]);
    assert!(office.good(&["list", "ca"]).contains("over, renewed"));
    // A newer register is not guessed at.
    fs::write(office.at("ca/issued.json"), office.register().replace("\"format\": 1", "\"format\": 2")).unwrap();
    office.refused(1, "newer lineproof", &["list", "ca"]);
}

/// Everything that makes a write durable or visible.
const STEPS: [&str; 4] = ["fsync", "rename", "renameat2", "unlink"];

/// Runs a command again and again, killed before its first such call, its second, and so on, until it ends by itself;
/// says how often it was killed.
fn killed_everywhere(office: &Office, arguments: &[&str], syscall: &str, after: impl Fn(&str)) -> u32 {
    for number in 1.. {
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-o"]).arg(office.at("strace"));
        command.args(["-e", &format!("trace={syscall}"), "-e", &format!("inject={syscall}:signal=KILL:when={number}")]);
        let lineproof = lineproof().get_program().to_owned();
        let output = command.arg(lineproof).arg("pki").args(arguments).current_dir(office.0.path()).output().unwrap();
        if output.status.success() {
            return number - 1;
        }
        after(&format!("killed at {syscall} {number}: {}", text(&output)));
    }
    unreachable!("a command ends")
}

#[test]
fn nobody_has_a_certificate_that_the_register_does_not_know() {
    if !has_strace() {
        return skipped("no strace that can inject");
    }
    let office = Office::new();
    let issue = ["issue", "ca", "station", "line-1", "station-1", "--out", "out"];
    let mut kills = 0;
    for syscall in STEPS {
        let known = std::cell::Cell::new(office.records().len());
        kills += killed_everywhere(&office, &issue, syscall, |at| {
            let before = known.replace(office.records().len());
            let given = ["key", "pem"].map(|extension| office.at(&format!("out/line-1-station-1.{extension}")));
            assert!(known.get() > before || given.iter().all(|path| !path.exists()), "{at}");
            assert!(given[0].exists() || !given[1].exists(), "a certificate without its key, {at}");
            let _ = fs::remove_dir_all(office.at("out"));
        });
        fs::remove_dir_all(office.at("out")).unwrap();
    }
    assert!(kills > 12, "killed {kills} times");
    // Every record can be revoked, given out or not.
    office.good(&["revoke", "ca", "line-1/station-1", "--all"]);
    office.good(&["list", "ca"]);
}

#[test]
fn a_revocation_that_was_cut_off_is_noticed_and_mended() {
    if !has_strace() {
        return skipped("no strace that can inject");
    }
    let office = Office::new();
    office.good(&["issue", "ca", "person", "anna", "--out", "anna"]);
    let mut behind = 0;
    for syscall in STEPS {
        let list = std::cell::Cell::new(0);
        killed_everywhere(&office, &["revoke", "ca", "anna"], syscall, |at| {
            let output = office.pki(&["list", "ca"]);
            let is_behind = text(&output).contains("behind the register");
            assert_eq!(output.status.code(), Some(i32::from(is_behind)), "{at}: {}", text(&output));
            list.set(list.get() + i32::from(is_behind));
        });
        behind += list.get();
        office.good(&["list", "ca"]);
    }
    assert!(behind > 2, "the list was behind {behind} times");
    assert_eq!(office.records().len(), 1);
}

#[test]
fn an_authority_is_there_whole_or_not_at_all() {
    if !has_strace() {
        return skipped("no strace that can inject");
    }
    let office = Office::new();
    for syscall in STEPS {
        killed_everywhere(&office, &["init", "new", "--trust-domain", "plant.example"], syscall, |at| {
            if office.at("new").exists() {
                for name in ["ca.key", "ca.pem", "issued.json"] {
                    assert!(office.at("new").join(name).exists(), "{name}, {at}");
                }
                office.good(&["crl", "new"]);
                office.good(&["issue", "new", "person", "anna", "--out", "anna"]);
                fs::remove_dir_all(office.at("anna")).unwrap();
                fs::remove_dir_all(office.at("new")).unwrap();
            } else if office.at(".new.part").exists() {
                let output = office.pki(&["init", "new", "--trust-domain", "plant.example"]);
                assert!(text(&output).contains("an interrupted `pki init`"), "{at}: {}", text(&output));
                fs::remove_dir_all(office.at(".new.part")).unwrap();
            }
        });
        office.good(&["list", "new"]);
        fs::remove_dir_all(office.at("new")).unwrap();
    }
}

#[test]
fn the_service_and_a_line_pc_work_with_what_it_issued() {
    let office = Office::new();
    office.good(&["issue", "ca", "server", "--dns", "localhost", "--out", "server"]);
    office.good(&["issue", "ca", "station", "line-1", "station-1", "--out", "station"]);
    let plant = Plant::new();
    let tls = plant.data().join("tls");
    fs::create_dir(&tls).unwrap();
    for (from, to) in [("localhost.pem", "server.pem"), ("localhost.key", "server.key"), ("ca.pem", "clients.pem")] {
        fs::copy(office.at("server").join(from), tls.join(to)).unwrap();
    }
    for key in ["[listen.tls]", "certificate =", "key =", "client_ca ="] {
        plant.edit_config(&format!("# {key}"), key);
    }
    let service = plant.serve();
    let port = service.address.rsplit(':').next().unwrap();
    let camera = |with: &[&str]| {
        let mut command = lineproof();
        command.args(["camera", "simulate", "--parts", "2", "--server", &format!("https://localhost:{port}")]);
        command.args(with).current_dir(office.at("station")).output().unwrap()
    };
    let own = ["--ca", "ca.pem", "--cert", "line-1-station-1.pem", "--key", "line-1-station-1.key"];
    let output = camera(&own);
    assert!(output.status.success(), "{}", text(&output));
    if has_openssl() {
        // A stranger's TLS is content with both certificates, too.
        let address = format!("localhost:{port}");
        let mut command = Command::new("openssl");
        command.args([
            "s_client",
            "-connect",
            &address,
            "-verify_return_error",
            "-verify_hostname",
            "localhost",
            "-alpn",
            "h2",
        ]);
        command.args(["-CAfile", "ca.pem", "-cert", own[3], "-key", own[5]]);
        let output = command.current_dir(office.at("station")).stdin(std::process::Stdio::null()).output().unwrap();
        assert!(output.status.success() && text(&output).contains("Verify return code: 0 (ok)"), "{}", text(&output));
    }
    assert_eq!(service.stop().code, Some(0));
}
