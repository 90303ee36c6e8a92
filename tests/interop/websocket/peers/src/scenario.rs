//! What is sent, and that it comes back.

use crate::Outcome;

pub(crate) const SIZES: [usize; 10] = [0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20];

/// A message and whether it is text.
pub(crate) type Message = (bool, Vec<u8>);

pub(crate) fn binary(size: usize) -> Message {
    (false, (0..size).map(|at| (at * 31 + (at >> 8)) as u8).collect())
}

/// Text of about `size` bytes: as many whole characters as fit.
pub(crate) fn text(size: usize) -> Message {
    let pattern = "grüße 🎉 {\"id\":1} ";
    let mut text = String::with_capacity(size);
    for character in pattern.chars().cycle() {
        if text.len() + character.len_utf8() > size {
            break;
        }
        text.push(character);
    }
    (true, text.into_bytes())
}

/// Sent one by one, each awaited.
pub(crate) fn alone() -> impl Iterator<Item = Message> {
    SIZES.into_iter().flat_map(|size| [text(size), binary(size)])
}

/// Sent together.
pub(crate) fn batch() -> Vec<Message> {
    (0..128).map(|at| if at % 2 == 0 { text(at * 97) } else { binary(at * 97) }).collect()
}

pub(crate) fn same(got: &Message, sent: &Message, what: &str) -> Outcome {
    if got == sent {
        return Ok(());
    }
    let kind = |message: &Message| if message.0 { "text" } else { "binary" };
    Err(format!(
        "{what}: {} of {} is not what was sent, {} of {}",
        kind(got),
        got.1.len(),
        kind(sent),
        sent.1.len()
    )
    .into())
}
