//! Sizes as people write them: `4096`, `64KiB`, `16MiB`.

use std::{fmt, str::FromStr};

/// A number of bytes, written `4096`, `64KiB`, `16MiB` or `1GiB`.
///
/// Strict on purpose: `64k`, `64KB` and `1.5MiB` mean different things to different programs, so they are refused with
/// the spelling that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(
    /// Bytes.
    pub usize,
);

const UNITS: [(&str, usize); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Why a text is not a [`Size`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SizeError {
    /// No whole number at the start.
    #[error("a size starts with a whole number: 4096, 64KiB, 16MiB")]
    NoNumber,
    /// A unit that is ambiguous or unknown.
    #[error("unknown unit '{unit}' (B, KiB, MiB and GiB are known){}", hint(*.meant))]
    UnknownUnit {
        /// The unit as written.
        unit: String,
        /// The unit that was probably meant.
        meant: Option<&'static str>,
    },
    /// More bytes than this machine can count.
    #[error("this size is larger than the machine can address")]
    TooLarge,
}

fn hint(meant: Option<&str>) -> String {
    meant.map(|meant| format!(": did you mean {meant}?")).unwrap_or_default()
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(SizeError::NoNumber)?;
        if number.is_empty() {
            return Err(SizeError::NoNumber);
        }
        let number: usize = number.parse().map_err(|_| SizeError::TooLarge)?;
        let unit = unit.trim_start();
        let factor = if unit.is_empty() {
            1
        } else {
            match UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                None => {
                    return Err(SizeError::UnknownUnit {
                        unit: unit.escape_debug().to_string(),
                        meant: meant(unit),
                    });
                }
            }
        };
        number.checked_mul(factor).map(Self).ok_or(SizeError::TooLarge)
    }
}

fn meant(unit: &str) -> Option<&'static str> {
    match unit.chars().next()?.to_ascii_lowercase() {
        'k' => Some("KiB"),
        'm' => Some("MiB"),
        'g' => Some("GiB"),
        'b' => Some("B"),
        _ => None,
    }
}

impl fmt::Display for Size {
    /// The largest unit that divides the number, so that parsing gives the same size again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)) {
            Some((name, factor)) if *factor > 1 => write!(f, "{}{name}", self.0 / factor),
            _ => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_strictly_and_written_back() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("4096B", 4096), ("64KiB", 65536), ("16 MiB", 16 << 20)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for (text, meant) in [("64k", "KiB"), ("64KB", "KiB"), ("1m", "MiB"), ("1gib", "GiB"), ("1b", "B")] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.to_string().ends_with(&format!("did you mean {meant}?")), "{text}: {error}");
        }
        assert_eq!("".parse::<Size>(), Err(SizeError::NoNumber));
        assert_eq!("-1".parse::<Size>(), Err(SizeError::NoNumber));
        assert!(matches!("1.5MiB".parse::<Size>(), Err(SizeError::UnknownUnit { meant: None, .. })));
        assert_eq!("99999999999999999999".parse::<Size>(), Err(SizeError::TooLarge));
        assert_eq!("17179869184GiB".parse::<Size>(), Err(SizeError::TooLarge));
        for bytes in [0, 1, 1000, 1024, 65536, 65537, 16 << 20, 1 << 30] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
    }
}
