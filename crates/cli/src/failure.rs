//! What went wrong, in the words of the error kinds, and the exit status it gives.

use std::process::ExitCode;

use crate::json::Object;

/// Done.
pub(crate) const EXIT_DONE: u8 = 0;
/// A refusal or an error.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Wrong usage; for `verify`: could not look.
pub(crate) const EXIT_USAGE: u8 = 2;

/// An error of a command or of one line of its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// As the database's `ErrorKind` is written, in snake_case.
    pub(crate) kind: String,
    pub(crate) message: String,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("invalid", message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new("unsupported", message)
    }

    pub(crate) fn io(what: &str, error: &std::io::Error) -> Self {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { "not_found" } else { "io" };
        Self::new(kind, format!("{what}: {error}"))
    }

    /// Whoever read the output went away, which is for them to explain.
    pub(crate) fn output_closed() -> Self {
        Self::new("output_closed", "standard output is closed")
    }

    /// The same failure, said of `context`.
    #[must_use]
    pub(crate) fn of(mut self, context: &str) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// `{"error":{"kind":…,"message":…}}`
    pub(crate) fn to_json(&self) -> String {
        let error = Object::new().text("kind", &self.kind).text("message", &self.message).end();
        Object::new().json("error", &error).end()
    }

    /// Tells the user, on standard error, and gives the exit status.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if self.kind == "output_closed" {
            return ExitCode::from(EXIT_FAILED);
        }
        if json {
            eprintln!("{}", self.to_json());
        } else {
            eprintln!("error: {}", self.message);
        }
        ExitCode::from(EXIT_FAILED)
    }
}

impl From<crate::json::JsonError> for Failure {
    fn from(error: crate::json::JsonError) -> Self {
        Self::invalid(error.to_string())
    }
}
