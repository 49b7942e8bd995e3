//! For the tests of this crate: reading the worked examples out of the format documents.

use std::fmt::Write;

/// The bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The hex digits of the one ```` ```hex ```` block of a document, without spaces.
pub(crate) fn hex_example(document: &str) -> String {
    let block = document.split("```hex").nth(1).and_then(|rest| rest.split("```").next());
    block.unwrap_or_default().split_whitespace().collect()
}
