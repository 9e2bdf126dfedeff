//! The PROXY protocol, versions 1 and 2: a proxy that passes on bytes, not requests, says first whom it saw.
//!
//! It is read byte by byte up to its end, because what follows belongs to TLS or HTTP. `ppp` understands what it says.

use ppp::{HeaderResult, PartialResult as _, v1, v2};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest header of version 1.
const MOST_TEXT: usize = 107;
/// What every header of version 2 has.
const BINARY_HEAD: usize = 16;
/// Addresses and extensions of version 2 that are read at most.
const MOST_BINARY: usize = 1_024;

/// Why a connection from a proxy is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// It ended, or was cut.
    #[error("the connection ended within the header of the PROXY protocol: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as it must.
    #[error("the connection does not begin with a header of the PROXY protocol")]
    Malformed,
}

/// Reads the header. `None`: the proxy speaks for itself, or does not know for whom.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, Fault> {
    let mut bytes = Vec::with_capacity(BINARY_HEAD);
    // Both versions have at least so many.
    bytes.resize(v2::PROTOCOL_PREFIX.len(), 0);
    stream.read_exact(&mut bytes).await?;
    if bytes == v2::PROTOCOL_PREFIX {
        bytes.resize(BINARY_HEAD, 0);
        stream.read_exact(&mut bytes[v2::PROTOCOL_PREFIX.len()..]).await?;
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if length > MOST_BINARY {
            return Err(Fault::Malformed);
        }
        bytes.resize(BINARY_HEAD + length, 0);
        stream.read_exact(&mut bytes[BINARY_HEAD..]).await?;
    } else if bytes.starts_with(b"PROXY ") {
        while !bytes.ends_with(b"\n") {
            if bytes.len() == MOST_TEXT {
                return Err(Fault::Malformed);
            }
            bytes.push(stream.read_u8().await?);
        }
    } else {
        return Err(Fault::Malformed);
    }
    seen(&bytes)
}

fn seen(bytes: &[u8]) -> Result<Option<SocketAddr>, Fault> {
    let header = HeaderResult::parse(bytes);
    if header.is_incomplete() {
        return Err(Fault::Malformed);
    }
    match header {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
            v1::Addresses::Tcp6(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            v2::Addresses::IPv4(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
            v2::Addresses::IPv6(ip) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(Fault::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of `bytes`, and what is left of them.
    async fn read_all(bytes: &[u8]) -> (Result<Option<String>, ()>, Vec<u8>) {
        let mut rest = bytes;
        let seen = read(&mut rest).await;
        let seen = seen.map(|address| address.map(|address| address.to_string()));
        (seen.map_err(drop), rest.to_vec())
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80];

    #[tokio::test]
    async fn both_versions_say_whom_the_proxy_saw_and_nothing_behind_them_is_touched() {
        let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0, 9, 0, 80]].concat();
        let with_more = [&V4[..], &[4, 0, 1, 42]].concat();
        for (bytes, expected) in [
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n".to_vec(),
                Some("192.0.2.1:4660"),
            ),
            (b"PROXY TCP6 2001:db8::7 ::1 9 80\r\n".to_vec(), Some("[2001:db8::7]:9")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ::1 ::2 1 2\r\n".to_vec(), None),
            (binary(1, 0x11, &V4), Some("192.0.2.1:4660")),
            (binary(1, 0x11, &with_more), Some("192.0.2.1:4660")),
            (binary(1, 0x21, &v6), Some("[2001:db8::7]:9")),
            (binary(1, 0x00, &[]), None),
            (binary(0, 0x00, &[]), None),
            (binary(0, 0x11, &V4), None),
        ] {
            let (seen, rest) = read_all(&[&bytes, &b"GET / HTTP/1.1\r\n"[..]].concat()).await;
            assert_eq!(seen, Ok(expected.map(str::to_owned)), "{bytes:?}");
            assert_eq!(rest, b"GET / HTTP/1.1\r\n", "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused_after_a_bounded_number_of_bytes() {
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 4_096]].concat();
        let huge = [&binary(1, 0x11, &[])[..14], &[0xff, 0xff], &[0; 70_000][..]].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            b"PROXY\r\n\r\n\r\n\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1\r\nHost: localhost\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.256 10.0.0.1 1 80\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 ::1 1 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 65536 80\r\n".to_vec(),
            b"PROXY TCP5 192.0.2.1 10.0.0.1 1 80\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 80\nGET".to_vec(),
            b"proxy TCP4 192.0.2.1 10.0.0.1 1 80\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00".to_vec(),
            binary(2, 0x11, &V4),
            binary(1, 0x11, &V4[..8]),
            binary(1, 0x51, &V4),
            [v2::PROTOCOL_PREFIX, &[0x31, 0x11, 0, 12], &V4].concat(),
            endless,
            huge,
            Vec::new(),
            b"PROXY TCP4".to_vec(),
            binary(1, 0x11, &V4)[..20].to_vec(),
        ] {
            let (seen, rest) = read_all(&bytes).await;
            assert_eq!(seen, Err(()), "{bytes:?}");
            assert!(bytes.len() - rest.len() <= BINARY_HEAD + MOST_BINARY, "{bytes:?}");
        }
    }
}
