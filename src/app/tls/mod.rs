//! TLS from PEM files: of witnesses, both ends, and towards the identity provider, here; of the service's listeners, which
//! change while it runs, in `live`.

pub(super) mod live;

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, ConfigBuilder, RootCertStore, ServerConfig,
        client::WantsClientCert,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};

use super::config::{Tls, WitnessTls};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Who a witness says it is, and whom it lets in.
///
/// # Errors
/// When a file cannot be read or is not what it should be.
pub fn acceptor(tls: &Tls) -> anyhow::Result<TlsAcceptor> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider()).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder
        .with_single_cert(certificates(&tls.certificate)?, key(&tls.key)?)
        .with_context(|| tls.certificate.display().to_string())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whom a plant believes to be its witness, and how it shows itself.
///
/// # Errors
/// As [`acceptor`].
pub fn client(tls: &WitnessTls) -> anyhow::Result<ClientConfig> {
    let builder = trust(&tls.ca)?;
    match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(private)) => builder
            .with_client_auth_cert(certificates(certificate)?, key(private)?)
            .with_context(|| certificate.display().to_string()),
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// Trusts the authorities of a PEM file, and no others.
///
/// # Errors
/// As [`acceptor`].
pub fn trusting(ca: &Path) -> anyhow::Result<ClientConfig> {
    Ok(trust(ca)?.with_no_client_auth())
}

fn trust(ca: &Path) -> anyhow::Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots(ca)?))
}

fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).with_context(|| path.display().to_string())?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let certificates = read().with_context(|| path.display().to_string())?;
    if certificates.is_empty() {
        bail!("{} holds no certificate in PEM form", path.display());
    }
    Ok(certificates)
}

fn key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).with_context(|| path.display().to_string())
}
