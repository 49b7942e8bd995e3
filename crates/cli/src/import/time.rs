//! The time in a line of another program's file.

use steadfast::{Timestamp, Value};

/// Whole numbers below this are seconds (until the year 5138), from here on milliseconds.
const SECONDS_END: u64 = 100_000_000_000;
/// Whole numbers from here on are microseconds.
const MILLIS_END: u64 = SECONDS_END * 1000;
/// No unit of these three makes a larger number a time before the year 5138.
const MICROS_END: u64 = MILLIS_END * 1000;

/// The time that `value` says: a whole number of seconds, milliseconds or microseconds since
/// 1970, told apart by its size, or a text as in RFC 3339.
pub(crate) fn time_from_value(value: &Value) -> Result<Timestamp, String> {
    match value {
        Value::Int(n) => time_from_number(*n),
        Value::String(text) => time_from_text(text),
        _ => Err("is neither a whole number nor a text as in RFC 3339".to_owned()),
    }
}

fn time_from_number(n: i64) -> Result<Timestamp, String> {
    let n = u64::try_from(n).map_err(|_| format!("{n} is a time before 1970"))?;
    let micros = match n {
        0..SECONDS_END => n * 1_000_000,
        SECONDS_END..MILLIS_END => n * 1000,
        MILLIS_END..MICROS_END => n,
        _ => return Err(format!("{n} is too large for seconds, milli- or microseconds")),
    };
    Ok(Timestamp::from_micros(micros))
}

fn time_from_text(text: &str) -> Result<Timestamp, String> {
    let time: jiff::Timestamp =
        text.parse().map_err(|_| format!("`{text}` is not a time as in RFC 3339"))?;
    let micros = u64::try_from(time.as_microsecond());
    Ok(Timestamp::from_micros(micros.map_err(|_| format!("`{text}` is a time before 1970"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_number_tells_its_unit() {
        let expected = Ok(Timestamp::from_micros(1_537_727_414_000_000));
        for n in [1_537_727_414, 1_537_727_414_000, 1_537_727_414_000_000] {
            assert_eq!(time_from_value(&Value::Int(n)), expected);
        }
        assert!(time_from_value(&Value::Int(-1)).is_err());
        assert!(time_from_value(&Value::Int(1_537_727_414_000_000_000)).is_err());
    }

    #[test]
    fn texts_are_rfc_3339() {
        let time = |text: &str| time_from_value(&Value::String(text.into()));
        let expected = Ok(Timestamp::from_micros(1_537_727_414_000_000));
        assert_eq!(time("2018-09-23T18:30:14Z"), expected);
        assert_eq!(time("2018-09-23T20:30:14+02:00"), expected);
        assert_eq!(time("1970-01-01T00:00:00.0000019Z"), Ok(Timestamp::from_micros(1)));
        for text in ["", "yesterday", "2018-09-23", "1537727414", "1969-12-31T23:59:59Z"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
