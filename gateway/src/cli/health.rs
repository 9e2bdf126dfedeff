//! `tidings health`: whether the server that is configured here lives, or is fit to serve. For images without a shell.
//!
//! It reads the same file, environment and flags as the server beside it, and asks that one where clients do, over loopback if it
//! listens on all addresses. The certificate that it is shown is not looked at, because nothing secret is sent and the answer
//! goes nowhere. While it looks for its cluster a server answers in the clear also where it speaks TLS later, so that is tried, too.

use super::server::{Answer, exchange};
use super::{FAILED, note, print_line};
use crate::config::Config;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// From the connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks, prints the answer, and says by the exit code whether it is good. `ready`: whether it is fit to serve; else whether it
/// lives.
///
/// # Errors
/// If the configuration names no port.
pub async fn run(config: &Config, ready: bool) -> Result<ExitCode, String> {
    let (address, tls) = place(config)?;
    let path = if ready { "/readyz" } else { "/healthz" };
    let asked = tokio::time::timeout(PATIENCE, Box::pin(ask(address, tls, path)));
    Ok(match asked.await {
        Ok(Ok(answer)) => {
            print_line(String::from_utf8_lossy(&answer.body).trim_end());
            if answer.status == 200 {
                ExitCode::SUCCESS
            } else {
                FAILED.into()
            }
        }
        Ok(Err(why)) => {
            note(&format!("no answer from {address}: {why}"));
            FAILED.into()
        }
        Err(_) => {
            note(&format!("no answer from {address} within {} s", PATIENCE.as_secs()));
            FAILED.into()
        }
    })
}

/// Where the server is to be asked, and whether by TLS.
fn place(config: &Config) -> Result<(SocketAddr, bool), String> {
    let mut address = config.listen().map_err(|error| error.to_string())?;
    if address.port() == 0 {
        return Err("the configuration names no port to ask (server.listen)".to_owned());
    }
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok((address, config.has_tls()))
}

async fn ask(address: SocketAddr, tls: bool, path: &str) -> Result<Answer, String> {
    if tls && let Ok(answer) = ask_by(address, true, path).await {
        return Ok(answer);
    }
    ask_by(address, false, path).await
}

async fn ask_by(address: SocketAddr, tls: bool, path: &str) -> Result<Answer, String> {
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let answer = if tls {
        let name = ServerName::from(address.ip());
        let stream = trusting()?.connect(name, stream).await;
        exchange(stream.map_err(|error| error.to_string())?, request).await
    } else {
        exchange(stream, request).await
    };
    answer.map_err(|error| error.to_string())
}

/// Encrypts without asking who is there.
fn trusting() -> Result<tokio_rustls::TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_mean_loopback_and_a_port_must_be_named() {
        let mut config = Config::default();
        let at = |config: &Config| place(config).map(|(address, tls)| (address.to_string(), tls));
        assert_eq!(at(&config), Ok(("127.0.0.1:7400".to_owned(), false)));
        config.server.listen = "0.0.0.0:80".to_owned();
        config.server.tls_cert_file = "cert.pem".to_owned();
        assert_eq!(at(&config), Ok(("127.0.0.1:80".to_owned(), true)));
        config.server.listen = "[::]:81".to_owned();
        assert_eq!(at(&config), Ok(("[::1]:81".to_owned(), true)));
        config.server.listen = "10.0.0.1:82".to_owned();
        assert_eq!(at(&config), Ok(("10.0.0.1:82".to_owned(), true)));
        config.server.listen = "10.0.0.1:0".to_owned();
        assert!(at(&config).is_err(), "no port");
    }
}
