//! [`HeadEnd`]: the end of an HTTP head, looked for as it comes.

use super::HandshakeError;

/// How far the end of a head has been looked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HeadEnd {
    scanned: usize,
}

impl HeadEnd {
    /// The length of the head at the start of `src`, with its blank line; `None` while it is not all here. One blank
    /// line may stand before it.
    ///
    /// # Errors
    /// When it is over `limit`, or a line ends with LF alone.
    pub(super) fn find(&mut self, src: &[u8], limit: usize) -> Result<Option<usize>, HandshakeError> {
        let within = src.get(..limit.min(src.len())).unwrap_or_default();
        let mut at = self.scanned;
        while let Some(found) = memchr::memchr(b'\n', within.get(at..).unwrap_or_default()) {
            let newline = at + found;
            let line = within.get(..newline).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(HandshakeError::bad("a line ends with LF alone", "RFC 9112 §2.2"));
            };
            at = newline + 1;
            if line.ends_with(b"\n") {
                return Ok(Some(at));
            }
        }
        self.scanned = at.max(within.len());
        if src.len() >= limit {
            return Err(HandshakeError::HeadTooLarge { limit });
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_the_head_is_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for cut in 0..head.len() {
            let mut end = HeadEnd::default();
            let first = end.find(&head[..cut], 100);
            assert_eq!(first, Ok((cut >= 27).then_some(27)), "{cut}");
            assert_eq!(end.find(head, 100), Ok(Some(27)));
        }
        let mut end = HeadEnd::default();
        for len in 0..=head.len() {
            assert_eq!(end.find(&head[..len], 100), Ok((len >= 27).then_some(27)));
        }
    }

    #[test]
    fn the_limit_holds_at_its_edge() {
        let head = b"GET / HTTP/1.1\r\n\r\n";
        assert_eq!(HeadEnd::default().find(head, head.len()), Ok(Some(head.len())));
        let limit = head.len() - 1;
        assert_eq!(HeadEnd::default().find(head, limit), Err(HandshakeError::HeadTooLarge { limit }));
        assert!(HeadEnd::default().find(b"GET / HTTP/1.1\n\n", 100).is_err());
        assert_eq!(HeadEnd::default().find(b"\r\nGET / HTTP/1.1\r\n\r\n", 100), Ok(Some(20)));
    }
}
