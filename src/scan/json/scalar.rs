//! Numbers and the three words, byte by byte.

/// A number, `true`, `false` or `null` (RFC 8259 §3, §6) that comes byte by byte. Says at once which byte cannot belong
/// to it; how large the number is does not matter.
///
/// ```
/// use framewire::scan::json::Scalar;
///
/// let mut scalar = Scalar::start(b'-').unwrap();
/// assert!(!scalar.is_complete());
/// assert_eq!(scalar.feed(b"12e"), Ok(()));
/// assert_eq!(scalar.feed(b"+5.1"), Err(2));
/// assert!(scalar.is_complete());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scalar(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    Power,
    /// What is still to come of a word.
    Word(&'static [u8]),
}

impl Scalar {
    /// The value that begins with `byte`; `None` when neither a number nor a word does.
    #[must_use]
    #[inline]
    pub fn start(byte: u8) -> Option<Self> {
        Some(Self(match byte {
            b'-' => State::Minus,
            b'0' => State::Zero,
            b'1'..=b'9' => State::Integer,
            b't' => State::Word(b"rue"),
            b'f' => State::Word(b"alse"),
            b'n' => State::Word(b"ull"),
            _ => return None,
        }))
    }

    /// Takes the next bytes in.
    ///
    /// # Errors
    /// The index of the first byte that cannot follow. The bytes before it are taken in.
    #[inline]
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut state = self.0;
        let mut result = Ok(());
        for (at, &byte) in bytes.iter().enumerate() {
            match Self::next(state, byte) {
                Some(next) => state = next,
                None => {
                    result = Err(at);
                    break;
                }
            }
        }
        self.0 = state;
        result
    }

    #[inline(always)]
    fn next(state: State, byte: u8) -> Option<State> {
        Some(match (state, byte) {
            (State::Integer, b'0'..=b'9') => State::Integer,
            (State::Fraction | State::Point, b'0'..=b'9') => State::Fraction,
            (State::Minus, b'0') => State::Zero,
            (State::Minus, b'1'..=b'9') => State::Integer,
            (State::Integer | State::Zero, b'.') => State::Point,
            (State::Integer | State::Zero | State::Fraction, b'e' | b'E') => State::Exponent,
            (State::Exponent, b'+' | b'-') => State::ExponentSign,
            (State::Exponent | State::ExponentSign | State::Power, b'0'..=b'9') => State::Power,
            (State::Word([first, rest @ ..]), byte) if *first == byte => State::Word(rest),
            _ => return None,
        })
    }

    /// Whether what has come is a whole value.
    #[must_use]
    #[inline]
    pub fn is_complete(&self) -> bool {
        matches!(self.0, State::Zero | State::Integer | State::Fraction | State::Power | State::Word([]))
    }
}
