//! A listener's certificates, read again when their files change: no restart for a new certificate, and none for a
//! certificate that was revoked.

use std::{
    collections::HashSet,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};
use tokio_util::sync::CancellationToken;
use x509_cert::{Certificate, crl::CertificateList, der::Decode as _, time::Time};

use super::provider;
use crate::{app::config::Tls, types::Blake3Digest};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Longest file in bytes: a revocation list of some 200,000 certificates.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Days before its end at which something is warned of, each once; 0 is when it is over.
const WARN_DAYS: [i64; 4] = [30, 7, 1, 0];
const DAY_S: i64 = 86_400;

/// The certificates of one listener.
pub struct LiveTls {
    /// `listen.tls` or `office.tls`.
    key: &'static str,
    files: Tls,
    /// Whether clients may come without a certificate: then another thing says who they are.
    is_optional: bool,
    current: RwLock<Arc<Loaded>>,
    /// Counts what was loaded; open connections look whether it has changed.
    generation: AtomicU64,
}

/// What the files hold.
struct Loaded {
    acceptor: TlsAcceptor,
    /// Serial numbers of clients that are let in no more.
    revoked: HashSet<Vec<u8>>,
    /// What ends when, in seconds since 1970.
    ends: Vec<(PathBuf, i64)>,
    /// BLAKE3 of the files together.
    digest: Blake3Digest,
}

impl LiveTls {
    /// Reads a listener's files.
    ///
    /// # Errors
    /// When one cannot be read or is not what it should be.
    pub fn load(key: &'static str, files: &Tls, is_optional: bool) -> anyhow::Result<Self> {
        let loaded = Loaded::read(files, is_optional).with_context(|| format!("[{key}]"))?;
        let current = RwLock::new(Arc::new(loaded));
        Ok(Self { key, files: files.clone(), is_optional, current, generation: AtomicU64::new(0) })
    }

    /// What takes the next handshake.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.current().acceptor.clone()
    }

    /// Changes whenever other files were loaded.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether a client certificate has been revoked since its handshake.
    pub fn is_revoked(&self, serial: &[u8]) -> bool {
        self.current().revoked.contains(serial)
    }

    /// Looks at the files until `stopper` fires; `changed` hears of what was loaded. What cannot be used is said, and what was
    /// loaded before goes on.
    pub async fn watch(self: Arc<Self>, stopper: CancellationToken, changed: impl Fn(&Blake3Digest) + Send) {
        let mut warned = HashSet::new();
        let mut failed = None;
        loop {
            for (file, days) in self.ending(&mut warned) {
                warn(self.key, &file, days);
            }
            tokio::select! {
                () = stopper.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let live = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || live.reload()).await;
            match read.unwrap_or_else(|error| Err(error.into())) {
                Ok(None) => failed = None,
                Ok(Some(digest)) => {
                    failed = None;
                    tracing::info!(listener = self.key, %digest, "other certificates are in use");
                    changed(&digest);
                }
                Err(error) => {
                    // Once for each reason, not every few seconds.
                    let reason = format!("{error:#}");
                    if failed.as_ref() != Some(&reason) {
                        tracing::error!(
                            listener = self.key,
                            reason,
                            "the changed certificates cannot be used; the former ones go on"
                        );
                    }
                    failed = Some(reason);
                }
            }
        }
    }

    /// Loads the files if they have changed.
    fn reload(&self) -> anyhow::Result<Option<Blake3Digest>> {
        let loaded = Loaded::read(&self.files, self.is_optional)?;
        if loaded.digest == self.current().digest {
            return Ok(None);
        }
        let digest = loaded.digest;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(Some(digest))
    }

    /// What ends soon or is over and was not said yet, with the days left.
    fn ending(&self, warned: &mut HashSet<(PathBuf, i64, i64)>) -> Vec<(PathBuf, i64)> {
        let now = now_s();
        let current = self.current();
        let due = current.ends.iter().filter_map(|(file, end_s)| {
            let days = (end_s - now).div_euclid(DAY_S);
            let step = *WARN_DAYS.iter().rev().find(|step| if **step == 0 { *end_s <= now } else { days < **step })?;
            warned.insert((file.clone(), *end_s, step)).then(|| (file.clone(), days))
        });
        due.collect()
    }

    fn current(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn warn(key: &str, file: &Path, days: i64) {
    let file = file.display();
    if days < 0 {
        tracing::error!(listener = key, %file, "is over: clients may refuse the service or be refused; put a new one in its place, no restart is needed");
    } else {
        tracing::warn!(listener = key, %file, days, "ends soon; put a new one in its place in time, no restart is needed");
    }
}

pub(crate) fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

impl Loaded {
    fn read(files: &Tls, is_optional: bool) -> anyhow::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let mut bytes_of = |path: &Path| -> anyhow::Result<Vec<u8>> {
            let bytes = bounded(path)?;
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
            Ok(bytes)
        };
        let chain = certificates(&files.certificate, &bytes_of(&files.certificate)?)?;
        let private = bytes_of(&files.key)?;
        let private = PrivateKeyDer::from_pem_slice(&private).with_context(|| files.key.display().to_string())?;
        let mut ends = vec![(files.certificate.clone(), end_of(&files.certificate, &chain[0])?)];
        let mut revoked = HashSet::new();
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, &bytes_of(path)?)? {
                    ends.push((path.clone(), end_of(path, &certificate)?));
                    roots.add(certificate).with_context(|| path.display().to_string())?;
                }
                let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                if let Some(path) = &files.crl {
                    let lists = revocation_lists(path, &bytes_of(path)?)?;
                    for list in &lists {
                        let list: CertificateList =
                            CertificateList::from_der(list).with_context(|| path.display().to_string())?;
                        let list = list.tbs_cert_list;
                        let serials = list.revoked_certificates.iter().flatten();
                        revoked.extend(serials.map(|one| trimmed(one.serial_number.as_bytes())));
                        ends.extend(list.next_update.map(|next| (path.clone(), seconds(next))));
                    }
                    // A list that is over still says who is revoked; refusing everybody would stop the line.
                    verifier = verifier.with_crls(lists).only_check_end_entity_revocation();
                }
                if is_optional {
                    verifier = verifier.allow_unauthenticated();
                }
                builder.with_client_cert_verifier(verifier.build().with_context(|| path.display().to_string())?)
            }
        };
        let mut config =
            builder.with_single_cert(chain, private).with_context(|| files.certificate.display().to_string())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let digest = Blake3Digest(*hasher.finalize().as_bytes());
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), revoked, ends, digest })
    }
}

fn bounded(path: &Path) -> anyhow::Result<Vec<u8>> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let bytes = read().with_context(|| path.display().to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        bail!("{} has more than {FILE_BYTES_MAX} bytes", path.display());
    }
    Ok(bytes)
}

fn certificates(path: &Path, pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.with_context(|| path.display().to_string())?;
    if certificates.is_empty() {
        bail!("{} holds no certificate in PEM form", path.display());
    }
    Ok(certificates)
}

fn revocation_lists(path: &Path, pem: &[u8]) -> anyhow::Result<Vec<CertificateRevocationListDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let lists = read.with_context(|| path.display().to_string())?;
    if lists.is_empty() {
        bail!("{} holds no revocation list in PEM form", path.display());
    }
    Ok(lists)
}

fn end_of(path: &Path, certificate: &CertificateDer<'_>) -> anyhow::Result<i64> {
    let parsed = Certificate::from_der(certificate).with_context(|| path.display().to_string())?;
    Ok(seconds(parsed.tbs_certificate().validity().not_after))
}

fn seconds(time: Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

/// A serial number without leading zeros.
fn trimmed(serial: &[u8]) -> Vec<u8> {
    let leading = serial.iter().take_while(|byte| **byte == 0).count();
    serial[leading..].to_vec()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate for a server that ends in so many days, written to `folder`.
    fn files(folder: &Path, days: i64) -> Tls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        let end = now_s() + days * DAY_S + DAY_S / 2;
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end.unsigned_abs());
        let (certificate, private) = (folder.join("server.pem"), folder.join("server.key"));
        std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        Tls { certificate, key: private, client_ca: None, crl: None }
    }

    #[test]
    fn what_ends_is_said_once_at_each_step() {
        let folder = tempfile::tempdir().unwrap();
        for (days, is_said) in [(90, false), (29, true), (6, true), (0, true), (-2, true)] {
            let live = LiveTls::load("listen.tls", &files(folder.path(), days), false).unwrap();
            let mut warned = HashSet::new();
            let said: Vec<i64> = live.ending(&mut warned).into_iter().map(|(_, days)| days).collect();
            assert_eq!(said, if is_said { vec![days] } else { Vec::new() });
            assert!(live.ending(&mut warned).is_empty(), "not again");
        }
    }

    #[test]
    fn a_certificate_that_cannot_be_used_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let live = LiveTls::load("listen.tls", &files(folder.path(), 90), false).unwrap();
        assert_eq!(live.reload().unwrap(), None);
        let first = live.current().digest;
        std::fs::write(folder.path().join("server.pem"), "half of it").unwrap();
        assert!(live.reload().unwrap_err().to_string().contains("server.pem"));
        assert_eq!((live.current().digest, live.generation()), (first, 0));
        // A certificate and a key that do not belong together, as while two files are being replaced.
        let other = tempfile::tempdir().unwrap();
        files(other.path(), 90);
        std::fs::copy(other.path().join("server.pem"), folder.path().join("server.pem")).unwrap();
        assert!(live.reload().is_err());
        std::fs::copy(other.path().join("server.key"), folder.path().join("server.key")).unwrap();
        assert!(live.reload().unwrap().is_some_and(|digest| digest != first));
        assert_eq!(live.generation(), 1);
    }
}
