//! The lines of an input: bounded in memory, and knowing which of them are waiting already.

use std::io::{BufRead, BufReader, Read, Result};

use steadfast::limits::VALUE_BYTES_MAX;

/// Longest line, in bytes. No dump has a longer one: the widest form of a value is a list of
/// empty byte strings, seven times as long as it is stored.
pub(crate) const LINE_BYTES_MAX: usize = 8 * VALUE_BYTES_MAX;

/// As many bytes as the kernel keeps for a pipe.
const BUFFER_BYTES: usize = 64 << 10;

/// A line buffer above this is given back after a long line.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Reads an input line by line.
pub(crate) struct Lines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
    number: u64,
    bytes: u64,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Text(&'a str),
    /// Bytes that are not UTF-8 from this one on, counted from 0.
    NotUtf8 {
        at: usize,
    },
    /// More than [`LINE_BYTES_MAX`]; none of it was kept.
    TooLong,
}

impl<'a> Line<'a> {
    /// The text, or what is wrong with the line.
    pub(crate) fn text(self) -> std::result::Result<&'a str, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::NotUtf8 { at } => Err(format!("the line is not UTF-8 at column {}", at + 1)),
            Self::TooLong => Err(format!("the line is longer than {LINE_BYTES_MAX} bytes")),
        }
    }
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(input: R) -> Self {
        let input = BufReader::with_capacity(BUFFER_BYTES, input);
        Self { input, line: Vec::new(), number: 0, bytes: 0 }
    }

    /// The next line, waiting for it; `None` at the end of the input. The last line may lack
    /// its line end.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>> {
        if self.line.capacity() > KEPT_BYTES_MAX {
            self.line = Vec::new();
        }
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = (&mut self.input).take(limit).read_until(b'\n', &mut self.line)?;
        self.bytes += read as u64;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > LINE_BYTES_MAX {
            self.line = Vec::new();
            self.skip_rest_of_line()?;
            return Ok(Some(Line::TooLong));
        }
        Ok(Some(match std::str::from_utf8(&self.line) {
            Ok(text) => Line::Text(text),
            Err(error) => Line::NotUtf8 { at: error.valid_up_to() },
        }))
    }

    fn skip_rest_of_line(&mut self) -> Result<()> {
        loop {
            let buffer = self.input.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let skipped = end.map_or(buffer.len(), |end| end + 1);
            self.input.consume(skipped);
            self.bytes += skipped as u64;
            if end.is_some() || skipped == 0 {
                return Ok(());
            }
        }
    }

    /// Whether the next line can be had without waiting for anybody.
    pub(crate) fn is_waiting(&self) -> bool {
        self.input.buffer().contains(&b'\n')
    }

    /// How many lines were read, which is also the number of the last one, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes the lines read had, with their ends.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_comes_once_blank_ones_too() {
        let mut lines = Lines::new(&b"a\n\n\xffb\r\nlast"[..]);
        assert_eq!(lines.next().unwrap(), Some(Line::Text("a")));
        assert!(lines.is_waiting());
        assert_eq!(lines.next().unwrap(), Some(Line::Text("")));
        assert_eq!(lines.next().unwrap(), Some(Line::NotUtf8 { at: 0 }));
        assert!(!lines.is_waiting(), "what is left has no end yet");
        assert_eq!(lines.next().unwrap(), Some(Line::Text("last")));
        assert_eq!(lines.next().unwrap(), None);
        assert_eq!((lines.number(), lines.bytes()), (4, 11));
    }

    #[test]
    fn an_over_long_line_is_skipped_in_bounded_memory() {
        let long = std::io::repeat(b'x').take(LINE_BYTES_MAX as u64 + 5);
        let mut lines = Lines::new(long.chain(&b"\nnext\n"[..]));
        assert_eq!(lines.next().unwrap(), Some(Line::TooLong));
        assert_eq!(lines.next().unwrap(), Some(Line::Text("next")));
        assert_eq!(lines.next().unwrap(), None);
        assert_eq!(lines.bytes(), LINE_BYTES_MAX as u64 + 11);
    }

    #[test]
    fn a_line_of_the_greatest_length_is_still_a_line() {
        let long = std::io::repeat(b'x').take(LINE_BYTES_MAX as u64);
        let mut lines = Lines::new(long.chain(&b"\n"[..]));
        assert!(
            matches!(lines.next().unwrap(), Some(Line::Text(text)) if text.len() == LINE_BYTES_MAX)
        );
        assert_eq!(lines.next().unwrap(), None);
    }
}
