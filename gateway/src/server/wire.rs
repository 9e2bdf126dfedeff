//! A connection after its upgrade: bytes in and out without waiting, in the clear or through TLS.
//!
//! A lane writes what a socket takes now and keeps the rest itself. TLS must not change that: at most one piece of ciphertext
//! waits here, and while it does nothing more is taken.

use rustls::ServerConnection;
use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// Bytes that one call encrypts: one record of TLS.
const RECORD: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Wire {
    tcp: TcpStream,
    tls: Option<Box<RefCell<ServerConnection>>>,
}

/// The socket as the TLS library sees it.
struct Raw<'a>(&'a TcpStream);

impl io::Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl io::Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire {
    /// A connection, with its TLS if it has any. The handshake is done.
    #[must_use]
    pub fn new(tcp: TcpStream, tls: Option<ServerConnection>) -> Self {
        Self {
            tcp,
            tls: tls.map(|tls| Box::new(RefCell::new(tls))),
        }
    }

    /// The socket below.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// See [`TcpStream::readable`].
    ///
    /// # Errors
    /// As the socket says.
    pub async fn readable(&self) -> io::Result<()> {
        self.tcp.readable().await
    }

    /// See [`TcpStream::writable`].
    ///
    /// # Errors
    /// As the socket says.
    pub async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    /// See [`TcpStream::poll_read_ready`].
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    /// Reads what is there; zero at the end.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there, or what the socket or TLS says.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return self.tcp.try_read(buffer);
        };
        let mut tls = tls.borrow_mut();
        loop {
            match tls.reader().read(buffer) {
                // The peer went without saying so: for us it is gone all the same.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            if tls.read_tls(&mut Raw(&self.tcp))? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Writes what is taken now.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is taken, or what the socket or TLS says.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return self.tcp.try_write(bytes);
        };
        self.flush()?;
        let written = tls.borrow_mut().writer().write(&bytes[..bytes.len().min(RECORD)])?;
        match self.flush() {
            // It was taken; what is left of it here goes first the next time.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(written),
            flushed => flushed.map(|()| written),
        }
    }

    /// Writes ciphertext that waits here.
    ///
    /// # Errors
    /// `WouldBlock` if some still waits, or what the socket says.
    pub fn flush(&self) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let mut tls = tls.borrow_mut();
        while tls.wants_write() {
            if tls.write_tls(&mut Raw(&self.tcp))? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Whether ciphertext waits here.
    #[must_use]
    pub fn unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.borrow().wants_write())
    }

    /// Says that nothing follows. What the socket does not take of that is not waited for.
    pub fn end(&self) {
        if let Some(tls) = &self.tls {
            tls.borrow_mut().send_close_notify();
            _ = self.flush();
        }
        _ = socket2::SockRef::from(&self.tcp).shutdown(Shutdown::Write);
    }
}
