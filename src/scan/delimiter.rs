//! The line break: found in bytes, and looked for while a payload is copied.

/// Offset of the first `\n` in `bytes`.
#[must_use]
#[inline]
pub fn find_newline(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes)
}

/// Copies `from` to the start of `to` and tells whether it holds no `\n`. `to` must be at least as long.
///
/// # Panics
/// When `to` is shorter than `from`.
#[must_use]
#[inline]
pub fn copy_line(from: &[u8], to: &mut [u8]) -> bool {
    let (to, _) = to.split_at_mut(from.len());
    to.copy_from_slice(from);
    find_newline(from).is_none()
}
