//! The lines that a target process reads and writes.
//!
//! It is started as `PROGRAM [ARGUMENT…] start DIR` or `PROGRAM [ARGUMENT…] reopen DIR` and says
//! on its standard output, each line flushed at once:
//!
//! | it is told | it says |
//! |---|---|
//! | (at its start) | `ready`, or `refused WHY` and ends |
//! | `apply SERIAL +KEY=VALUE -KEY …` | `ok SERIAL nothing`, `ok SERIAL death` or `ok SERIAL power`: what it promises of this and all earlier transactions |
//! | `dump` | `entry KEY VALUE` for each, then `end` |
//! | (end of input) | ends, without closing anything if it can |
//! | | `failed WHY` instead of an answer, and ends |
//!
//! Keys and values are in hexadecimal; an empty value is written `-`. `WHY` is the rest of the
//! line. The process is killed, and never asked to close. What it says on its standard error is
//! thrown away, unless the variable `STEADFAST_TARGET_STDERR` is set.

use std::io::{BufRead, Write};
use std::path::Path;

use crate::target::{CrashTarget, Entries, Failure, Promise, Transaction};

/// Does what comes on standard input, as `arguments` say: `start DIR` or `reopen DIR`. Returns
/// the exit code.
pub fn serve(target: &mut dyn CrashTarget, arguments: &[String]) -> i32 {
    let opened = match arguments {
        [verb, dir] if verb == "start" => target.start(Path::new(dir)),
        [verb, dir] if verb == "reopen" => target.reopen(Path::new(dir)),
        _ => {
            eprintln!("usage: [ARGUMENT…] start|reopen DIR");
            return 2;
        }
    };
    if let Err(why) = opened {
        return say(&format!("refused {}", one_line(&why))).map_or(1, |()| 3);
    }
    let mut done = say("ready");
    for line in std::io::stdin().lock().lines() {
        if done.is_err() {
            break;
        }
        done = line.map_err(Into::into).and_then(|line| answer(target, &line));
    }
    match done {
        Ok(()) => 0,
        Err(why) => say(&format!("failed {}", one_line(&why))).map_or(1, |()| 1),
    }
}

fn one_line(why: &Failure) -> String {
    why.to_string().replace(['\n', '\r'], " ")
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes())?;
    Ok(out.flush()?)
}

fn answer(target: &mut dyn CrashTarget, line: &str) -> Result<(), Failure> {
    if line == "dump" {
        for (key, value) in target.dump()? {
            say(&format!("entry {} {}", hex(&key), hex(&value)))?;
        }
        return say("end");
    }
    let transaction = parse_apply(line).ok_or_else(|| format!("told {line:?}"))?;
    target.apply(&transaction)?;
    let promise = promise_name(target.acknowledge()?);
    say(&format!("ok {} {promise}", transaction.serial))
}

const PROMISES: [(Promise, &str); 3] = [
    (Promise::Nothing, "nothing"),
    (Promise::ProcessDeath, "death"),
    (Promise::PowerLoss, "power"),
];

fn promise_name(promise: Promise) -> &'static str {
    PROMISES.into_iter().find(|one| one.0 == promise).map_or("nothing", |one| one.1)
}

/// `ok SERIAL PROMISE`.
pub(crate) fn parse_ok(line: &str) -> Option<(u64, Promise)> {
    let (serial, promise) = line.strip_prefix("ok ")?.split_once(' ')?;
    let promise = PROMISES.into_iter().find(|one| one.1 == promise)?.0;
    Some((serial.parse().ok()?, promise))
}

/// The line that asks for a transaction.
pub(crate) fn apply_line(transaction: &Transaction) -> String {
    let writes = transaction.writes.iter().map(|(key, value)| match value {
        Some(value) => format!(" +{}={}", hex(key), hex(value)),
        None => format!(" -{}", hex(key)),
    });
    format!("apply {}{}", transaction.serial, writes.collect::<String>())
}

fn parse_apply(line: &str) -> Option<Transaction> {
    let mut words = line.strip_prefix("apply ")?.split(' ');
    let serial = words.next()?.parse().ok()?;
    let write = |word: &str| match word.split_at_checked(1)? {
        ("+", rest) => {
            let (key, value) = rest.split_once('=')?;
            Some((unhex(key)?, Some(unhex(value)?)))
        }
        ("-", key) => Some((unhex(key)?, None)),
        _ => None,
    };
    Some(Transaction { serial, writes: words.map(write).collect::<Option<_>>()? })
}

/// Adds `entry KEY VALUE` to `entries`.
pub(crate) fn parse_entry(line: &str, entries: &mut Entries) -> Option<()> {
    let (key, value) = line.strip_prefix("entry ")?.split_once(' ')?;
    entries.insert(unhex(key)?, unhex(value)?).is_none().then_some(())
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".into();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text == "-" {
        return Some(Vec::new());
    }
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_they_went() {
        let writes = vec![
            (b"a".to_vec(), Some(b"\x00\xff".to_vec())),
            (b"b".to_vec(), None),
            (b"c".to_vec(), Some(Vec::new())),
        ];
        let transaction = Transaction { serial: 7, writes };
        let line = apply_line(&transaction);
        assert_eq!(line, "apply 7 +61=00ff -62 +63=-");
        assert_eq!(parse_apply(&line), Some(transaction));
        for line in ["apply", "apply x", "apply 1 61=00", "apply 1 +61", "apply 1 +6g=00", "x"] {
            assert_eq!(parse_apply(line), None, "{line}");
        }
        for (promise, name) in PROMISES {
            assert_eq!(parse_ok(&format!("ok 3 {name}")), Some((3, promise)));
        }
        assert_eq!(parse_ok("ok 3"), None);
        let mut entries = Entries::new();
        assert!(parse_entry("entry 61 -", &mut entries).is_some());
        assert!(parse_entry("entry 61 62", &mut entries).is_none(), "a key comes once");
    }
}
