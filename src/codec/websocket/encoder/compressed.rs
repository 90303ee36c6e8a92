//! Compressed messages in the encoder.

use super::{FIN, MAX_HEAD, Opcode, Role, WebSocketEncoder, key, write};
use crate::{
    codec::websocket::{deflate::Deflater, handshake::DeflateParams, head::RSV1},
    scan,
};

impl WebSocketEncoder {
    pub(in crate::codec::websocket) fn set_deflate(&mut self, params: DeflateParams) {
        let (bits, fresh) = match self.role {
            Role::Client => (params.client_max_window_bits, params.client_no_context_takeover),
            Role::Server => (params.server_max_window_bits, params.server_no_context_takeover),
        };
        self.deflater = Some(Box::new(Deflater::new(bits, !fresh)));
        self.look_again();
    }

    pub(in crate::codec::websocket) fn set_deflate_level(&mut self, level: u32) {
        if let Some(deflater) = &mut self.deflater {
            deflater.set_level(level);
        }
    }

    pub(in crate::codec::websocket) fn set_deflate_threshold(&mut self, bytes: usize) {
        if let Some(deflater) = &mut self.deflater {
            deflater.set_threshold(bytes);
        }
    }

    /// Whether it is tried to send a message of `size` bytes compressed. Fragments are not.
    #[inline]
    pub(super) fn compresses(&self, size: usize) -> bool {
        match &self.deflater {
            Some(deflater) => {
                !self.more && self.first == FIN | Opcode::Data(self.kind).bits() && deflater.wants(size)
            }
            None => false,
        }
    }

    /// The most bytes that a payload of `size` bytes takes as a compressed frame.
    pub(super) fn compressed_room(size: usize) -> usize {
        Deflater::bound(size).saturating_add(MAX_HEAD)
    }

    /// Writes `payload` as a compressed frame to the start of `dst`; `None` when it does not fit.
    pub(super) fn deflate(&mut self, payload: &[u8], dst: &mut [u8]) -> Option<usize> {
        let key = match self.role {
            Role::Client => Some(key::next()),
            Role::Server => None,
        };
        let first = self.first | RSV1;
        let mut head = [0; MAX_HEAD];
        // Room for the largest head; the payload moves up to the one that it gets.
        let guess = write(&mut head, first, Deflater::bound(payload.len()), key);
        let size = self.deflater.as_mut()?.deflate(payload, dst.get_mut(guess..)?)?;
        let len = write(&mut head, first, size, key);
        if len < guess {
            dst.copy_within(guess..guess + size, len);
        }
        dst.get_mut(..len)?.copy_from_slice(head.get(..len)?);
        if let Some(key) = key {
            let _ascii = scan::unmask(dst.get_mut(len..len + size)?, key);
        }
        Some(len + size)
    }
}
