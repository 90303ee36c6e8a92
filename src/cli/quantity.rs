//! Values of options: durations, sizes, and numbers for people.

use std::time::Duration;

use framewire::endpoint::Size;

/// Reads `5s`, `500ms`, `250us` or `2m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 5] = [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or_default();
    let number: f64 =
        number.parse().map_err(|_| "a duration is a number and a unit: 500ms, 5s, 2m".to_owned())?;
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(if unit.is_empty() {
            format!("a unit is missing: did you mean {text}s or {text}ms?")
        } else {
            format!("unknown unit '{}' (us, ms, s and m are known)", unit.escape_debug())
        });
    };
    let duration =
        Duration::try_from_secs_f64(number * factor).map_err(|_| "this duration is too long".to_owned())?;
    if duration > Duration::from_secs(366 * 24 * 3600) {
        Err("this duration is too long".to_owned())
    } else {
        Ok(duration)
    }
}

/// A duration, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(pub(crate) Option<Duration>);

/// Reads what [`duration`] reads, above zero, or `none`.
pub(crate) fn deadline(text: &str) -> Result<Deadline, String> {
    match text {
        "none" => Ok(Deadline(None)),
        _ => match duration(text)? {
            Duration::ZERO => Err("nobody is that fast; 'none' is no limit".to_owned()),
            after => Ok(Deadline(Some(after))),
        },
    }
}

/// Reads a size above zero.
pub(crate) fn size(text: &str) -> Result<Size, String> {
    match text.parse::<Size>() {
        Ok(Size(0)) => Err("at least 1 byte is needed".to_owned()),
        Ok(size) => Ok(size),
        Err(error) => Err(error.to_string()),
    }
}

/// A number with blanks between groups of three digits.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// The value at `share` (0 to 1) of sorted `samples`.
pub(crate) fn percentile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    let last = sorted.len().saturating_sub(1);
    let at = (share * last as f64).round() as usize;
    sorted.get(at.min(last)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1.5ms"), Ok(Duration::from_micros(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("5").is_err_and(|error| error.contains("5s or 5ms")));
        assert!(duration("5h").is_err_and(|error| error.contains("'h'")));
        for text in ["", "s", "-1s", "1e400s", "999999999999m", "1..2s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_deadline_may_be_none_but_not_nothing() {
        assert_eq!(deadline("none"), Ok(Deadline(None)));
        assert_eq!(deadline("90s"), Ok(Deadline(Some(Duration::from_secs(90)))));
        assert!(deadline("0s").is_err_and(|error| error.contains("none")));
        assert!(deadline("never").is_err());
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        assert_eq!(percentile::<u32>(&[], 0.5), 0);
        assert_eq!(percentile(&[7], 0.99), 7);
        let samples: Vec<u32> = (0..=100).collect();
        assert_eq!(
            (percentile(&samples, 0.5), percentile(&samples, 0.99), percentile(&samples, 1.0)),
            (50, 99, 100)
        );
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(1_234_567.4), "1 234 567");
        assert_eq!(grouped(999.0), "999");
    }
}
