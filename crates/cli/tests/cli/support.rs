//! Driving the real binary: one place that knows how.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A place for a database, gone with the test.
pub(crate) struct Home {
    root: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    /// Where the database is, or will be.
    pub(crate) fn db(&self) -> PathBuf {
        self.root.path().join("db")
    }

    /// Another path beside it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A file beside it.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// `steadfast COMMAND db ARGS…` with nothing on standard input.
    pub(crate) fn run(&self, command: &str, args: &[&str]) -> Done {
        self.run_with_input(command, args, "")
    }

    /// The same with an input.
    pub(crate) fn run_with_input(
        &self,
        command: &str,
        args: &[&str],
        input: impl AsRef<[u8]>,
    ) -> Done {
        steadfast_on(command, &self.db(), args, input)
    }

    /// Applies `lines` and gives the answers.
    pub(crate) fn apply(&self, lines: &[&str]) -> Vec<Value> {
        let done = self.run_with_input("apply", &[], lines.join("\n") + "\n").ok();
        let answers: Vec<_> = done.lines().iter().map(|line| json(line)).collect();
        assert_eq!(answers.len(), lines.len(), "every line has one answer: {answers:?}");
        answers
    }

    /// A writer that is fed by hand.
    pub(crate) fn start_apply(&self, args: &[&str]) -> Child {
        program()
            .arg("apply")
            .arg(self.db())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap()
    }

    /// The dump, which must succeed.
    pub(crate) fn dump(&self) -> String {
        self.run("dump", &[]).ok().stdout
    }

    /// The entries of the dump of one type.
    pub(crate) fn entries(&self, kind: &str) -> Vec<Value> {
        let dump = self.dump();
        dump.lines().map(json).filter(|entry| entry["type"] == kind).collect()
    }

    /// The files of one folder of the database, in the order of their names.
    pub(crate) fn files_in(&self, folder: &str) -> Vec<PathBuf> {
        let files = self.files().into_iter().map(|(path, _)| path);
        files.filter(|path| path.parent() == Some(&self.db().join(folder))).collect()
    }

    /// Transactions `range`, each of which gives one key of run `r` a value and moves cell `c`.
    pub(crate) fn fill(&self, range: std::ops::Range<u32>, args: &[&str]) {
        let lines: String = range.map(|n| change(n) + "\n").collect();
        let args = [&["--durability", "buffered"], args].concat();
        let done = self.run_with_input("apply", &args, lines).ok();
        assert!(done.lines().iter().all(|answer| version(&json(answer)) > 0));
    }

    /// The bytes of every file of the database.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut dirs = vec![self.db()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    files.push((path.clone(), std::fs::read(&path).unwrap()));
                }
            }
        }
        files.sort();
        files
    }
}

impl Done {
    /// The same, which must have exited with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.status(0)
    }

    #[track_caller]
    pub(crate) fn status(self, status: i32) -> Self {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    /// The whole output, which must be one JSON value.
    pub(crate) fn json(&self) -> Value {
        json(&self.stdout)
    }
}

pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_steadfast"))
}

/// `steadfast ARGS…`
pub(crate) fn steadfast(args: &[&str]) -> Done {
    finish(program().args(args), b"")
}

/// `steadfast COMMAND dir ARGS…`
pub(crate) fn steadfast_on(
    command: &str,
    dir: &Path,
    args: &[&str],
    input: impl AsRef<[u8]>,
) -> Done {
    finish(program().arg(command).arg(dir).args(args), input.as_ref())
}

fn finish(command: &mut Command, input: &[u8]) -> Done {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A command that reads no input may be gone before this is written.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output().unwrap()
    });
    let Output { status, stdout, stderr } = output;
    Done {
        status: status.code().expect("not killed"),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

#[track_caller]
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

pub(crate) fn put(run: &str, key: &str, value: &str) -> String {
    format!(r#"{{"ops":[{{"op":"kv_put","run":"{run}","key":"{key}","value":{value}}}]}}"#)
}

/// Transaction `n`: one of 20 keys gets a value, and the cell another.
pub(crate) fn change(n: u32) -> String {
    let key = n % 20;
    format!(
        r#"{{"ops":[{{"op":"kv_put","run":"r","key":"k{key:02}","value":{n}}},{{"op":"state_set","run":"r","cell":"c","value":{n}}}]}}"#
    )
}

/// Changes a bit of the byte at `place`, counted in thousandths of the file.
pub(crate) fn damage(file: &Path, place: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.len() * place / 1000;
    bytes[at] ^= 0x40;
    std::fs::write(file, bytes).unwrap();
}

pub(crate) fn append(run: &str, stream: &str, payload: &str, more: &str) -> String {
    format!(
        r#"{{"ops":[{{"op":"event_append","run":"{run}","stream":"{stream}","payload":{payload}{more}}}]}}"#
    )
}

#[track_caller]
pub(crate) fn version(answer: &Value) -> u64 {
    answer["ok"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

#[track_caller]
pub(crate) fn kind(answer: &Value) -> &str {
    assert!(answer["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{answer}");
    answer["error"]["kind"].as_str().unwrap_or_else(|| panic!("{answer}"))
}
