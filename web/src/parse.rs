//! Values as people write them into URLs.

use jiff::civil::Date;

/// Text that is not what it should be. Says what was expected and quotes no more than the start of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {expected}")]
pub struct Invalid {
    text: String,
    expected: &'static str,
}

/// Reads a date as ISO 8601 writes it, `2026-02-28`, and nothing else: no time, no week, no missing zero.
pub fn iso_date(text: &str) -> Result<Date, Invalid> {
    let invalid = || Invalid::new(text, "date of the form YYYY-MM-DD");
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text.as_bytes() else { return Err(invalid()) };
    let number =
        |digits: &[u8]| digits.iter().try_fold(0_i16, |n, d| d.is_ascii_digit().then(|| n * 10 + i16::from(d - b'0')));
    let (Some(year), Some(month), Some(day)) = (number(&[y1, y2, y3, y4]), number(&[m1, m2]), number(&[d1, d2])) else {
        return Err(invalid());
    };
    Date::new(year, month as i8, day as i8).map_err(|_| invalid()) // two digits fit an i8
}

/// Reads a yes or no: `1 t T true True TRUE` or `0 f F false False FALSE`; nothing at all means no.
pub fn truthy(text: &str) -> Result<bool, Invalid> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(Invalid::new(text, "yes or no: use `true` or `false`")),
    }
}

impl Invalid {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: crate::reject::clip(text), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_ten_characters_and_exists() {
        assert_eq!(iso_date("2024-02-29").unwrap(), Date::constant(2024, 2, 29));
        for wrong in [
            "",
            "2023-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-1-01",
            "20240101",
            "2024-W01-1",
            "+024-01-01",
            "2024-01-01T00:00",
            "2024-01-0١",
            "2024–01-01",
            " 2024-01-01",
            "2024-01-00",
            "2024-01-99",
        ] {
            assert!(iso_date(wrong).is_err(), "{wrong}");
        }
        assert_eq!(iso_date("tomorrow").unwrap_err().to_string(), "`tomorrow` is no date of the form YYYY-MM-DD");
    }

    #[test]
    fn yes_and_no_are_read_as_gizmo_reads_them() {
        for yes in ["1", "t", "T", "true", "True", "TRUE"] {
            assert_eq!(truthy(yes), Ok(true));
        }
        for no in ["", "0", "f", "F", "false", "False", "FALSE"] {
            assert_eq!(truthy(no), Ok(false));
        }
        for neither in ["yes", "tRUE", " true", "2", "on"] {
            assert!(truthy(neither).is_err(), "{neither}");
        }
    }

    #[test]
    fn an_error_quotes_only_the_start_of_a_long_text() {
        assert!(truthy(&"é".repeat(100_000)).unwrap_err().to_string().len() < 300);
    }
}
