//! A look at the raw bytes of a request's head for the one thing that the HTTP library hides.
//!
//! hyper drops `Content-Length` from a request that also has `Transfer-Encoding` and goes on. A proxy in front may have read
//! the other of the two: request smuggling. So the names of headers are watched here, before hyper sees them.

/// Watches one request's head as it arrives in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    // How many bytes of `NAME` the current line has matched; `NO_MATCH` once it cannot match any more.
    matched: u8,
    // Bytes in the current line, counted up to 2: an empty line ends the head.
    line: u8,
    begun: bool,
    lengths: bool,
    ended: bool,
}

const NAME: &[u8] = b"content-length";
const NO_MATCH: u8 = u8::MAX;

impl HeadScan {
    /// Looks at the next bytes. What follows the end of the head is ignored.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !self.ended && !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            self.part_of_line(&bytes[..end.unwrap_or(bytes.len())]);
            let Some(end) = end else { return };
            bytes = &bytes[end + 1..];
            if self.line == 0 {
                // Empty lines before the request line are allowed and mean nothing.
                self.ended = self.begun;
            }
            self.begun |= self.line > 0;
            self.line = 0;
            self.matched = 0;
        }
    }

    fn part_of_line(&mut self, part: &[u8]) {
        let significant = part.strip_suffix(b"\r").unwrap_or(part);
        self.line = self
            .line
            .saturating_add(u8::try_from(significant.len()).unwrap_or(u8::MAX));
        for byte in part {
            if self.matched == NO_MATCH {
                return;
            }
            match NAME.get(usize::from(self.matched)) {
                Some(expected) if byte.eq_ignore_ascii_case(expected) => self.matched += 1,
                None => {
                    self.lengths |= matches!(byte, b':' | b' ' | b'\t');
                    self.matched = NO_MATCH;
                }
                Some(_) => self.matched = NO_MATCH,
            }
        }
    }

    /// Once the head has ended: whether it had a `Content-Length`.
    pub(super) fn verdict(&self) -> Option<bool> {
        self.ended.then_some(self.lengths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(head: &str) -> Vec<Option<bool>> {
        (1..=head.len())
            .map(|size| {
                let mut scan = HeadScan::default();
                head.as_bytes().chunks(size).for_each(|piece| scan.feed(piece));
                scan.verdict()
            })
            .collect()
    }

    #[test]
    fn a_length_is_seen_however_the_head_is_cut() {
        for head in [
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\nTransfer-Encoding: chunked\ncONTENT-lENGTH:5\n\nbody",
            "\r\n\r\nPOST / HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
        ] {
            assert!(verdicts(head).iter().all(|verdict| *verdict == Some(true)), "{head:?}");
        }
    }

    #[test]
    fn a_length_elsewhere_is_no_length() {
        for head in [
            "POST /content-length:5 HTTP/1.1\r\nX-Content-Length: 5\r\nContent-Lengths: 5\r\n\r\n\r\nContent-Length: 5\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n\r\n",
        ] {
            assert!(verdicts(head).iter().all(|verdict| *verdict == Some(false)), "{head:?}");
        }
    }

    #[test]
    fn an_unfinished_head_has_no_verdict() {
        assert!(
            verdicts("GET / HTTP/1.1\r\nContent-Length: 5\r\n")
                .iter()
                .all(Option::is_none)
        );
    }
}
