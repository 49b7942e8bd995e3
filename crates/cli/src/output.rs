//! Standard output: lines, aligned tables, sizes and times in plain words.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::Duration;

use crate::failure::{Failure, Result};

/// Standard output, buffered.
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(crate) fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        self.0.write_all(text.as_bytes()).and_then(|()| self.0.write_all(b"\n")).map_err(failed)
    }

    /// Hands what was written to whoever reads it.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.0.flush().map_err(failed)
    }

    /// A line, flushed.
    pub(crate) fn line_now(&mut self, text: &str) -> Result<()> {
        self.line(text)?;
        self.flush()
    }

    /// Rows in aligned columns: the first row is the head, columns of numbers go to the right.
    pub(crate) fn table<const N: usize>(&mut self, rows: &[[String; N]]) -> Result<()> {
        for line in aligned(rows) {
            self.line(&line)?;
        }
        Ok(())
    }
}

fn failed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::output_closed();
    }
    Failure::io("standard output", &error)
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let body = rows.get(1..).unwrap_or_default();
    let starts_with_digit = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit());
    let numeric: [bool; N] = std::array::from_fn(|column| {
        body.iter().all(|row| starts_with_digit(&row[column]) || row[column] == "-")
    });
    let line = |row: &[String; N]| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let room = " ".repeat(widths[column] - cell.chars().count());
            if numeric[column] { format!("{room}{cell}") } else { format!("{cell}{room}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A number with its thousands apart.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How many of something, in words.
pub(crate) fn counted(n: u64, one: &str, more: &str) -> String {
    match n {
        0 => format!("no {more}"),
        1 => format!("1 {one}"),
        n => format!("{} {more}", count(n)),
    }
}

/// A duration, as programs read it.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A size, as people say it.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut hundredths = bytes.saturating_mul(100) / 1024;
    let mut unit = 0;
    while hundredths >= 102_400 && unit + 1 < UNITS.len() {
        hundredths /= 1024;
        unit += 1;
    }
    format!("{}.{:02} {}", hundredths / 100, hundredths % 100, UNITS[unit])
}

/// A duration, as people say it.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1000 => format!("{micros} µs"),
        micros @ 1000..1_000_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        micros => format!("{}.{:02} s", micros / 1_000_000, micros % 1_000_000 / 10_000),
    }
}

/// A moment, as in RFC 3339.
pub(crate) fn moment(time: steadfast::Timestamp) -> String {
    let micros = i64::try_from(time.as_micros()).ok();
    match micros.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok()) {
        Some(moment) => moment.to_string(),
        None => time.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_go_to_the_right() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let lines = aligned(&[row("run", "events"), row("é", "7"), row("long name", "1,000")]);
        assert_eq!(lines, ["run        events", "é               7", "long name   1,000"]);
    }

    #[test]
    fn figures_are_as_people_say_them() {
        assert_eq!(
            (count(0), count(1000), count(1_234_567)),
            ("0".into(), "1,000".into(), "1,234,567".into())
        );
        assert_eq!(
            (size(1023), size(1536), size(5 << 20)),
            ("1023 B".into(), "1.50 KiB".into(), "5.00 MiB".into())
        );
        assert_eq!(
            [0, 1, 2000].map(|n| counted(n, "key", "keys")),
            ["no keys", "1 key", "2,000 keys"]
        );
        assert_eq!(duration(Duration::from_micros(1500)), "1.5 ms");
        assert_eq!(duration(Duration::from_millis(2340)), "2.34 s");
        let time = steadfast::Timestamp::from_micros(1_537_727_414_000_000);
        assert_eq!(moment(time), "2018-09-23T18:30:14Z");
    }
}
