//! What people type for how much history to keep, and the policy it means.
//!
//! Rules for runs name them; ids are looked up by whoever knows the runs.

use std::num::NonZeroU32;
use std::time::Duration;

use steadfast::{Retention, RetentionPolicy, RunId, TypeTag};

use crate::failure::{Failure, Result};

/// The grammar, as errors and help show it.
const GRAMMAR: &str = "RULE[,RULE...]: the first RULE is KEEP, for everything, or like the others \
    kv=KEEP, state=KEEP, event=KEEP or run:NAME=KEEP; KEEP is `all`, `last:N`, `for:DURATION` or \
    `last:N+for:DURATION`; N is from 1 on, DURATION a number and s, m, h or d";

/// A policy in which runs have names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RetentionSpec {
    /// All of it but the rules for runs.
    policy: RetentionPolicy,
    runs: Vec<(String, Retention)>,
}

/// The primitive that a rule may be for.
fn primitive(name: &str) -> Option<TypeTag> {
    Some(match name {
        "kv" => TypeTag::Kv,
        "state" => TypeTag::State,
        "event" => TypeTag::Event,
        "signal" => TypeTag::Signal,
        "collection" => TypeTag::Collection,
        "attributes" => TypeTag::Attributes,
        "cohort" => TypeTag::Cohort,
        "engagement" => TypeTag::Engagement,
        _ => return None,
    })
}

impl RetentionSpec {
    /// Reads what was typed; the error shows what may be.
    pub(crate) fn parse(spec: &str) -> std::result::Result<Self, String> {
        let bad = |what: String| format!("{what}; SPEC is {GRAMMAR}");
        let mut parsed = Self::default();
        let mut seen = Vec::new();
        for (place, rule) in spec.split(',').enumerate() {
            // A run's name may have an equals sign in it; what is kept has none.
            let (subject, kept) = match rule.rsplit_once('=') {
                Some((subject, kept)) => (subject, kept),
                None if place == 0 => ("", rule),
                None => return Err(bad(format!("`{rule}` does not say what it is for"))),
            };
            let kept = keep(kept).ok_or_else(|| bad(format!("`{kept}` is not understood")))?;
            if seen.contains(&subject) {
                return Err(bad(format!("there are two rules for `{subject}`")));
            }
            seen.push(subject);
            let policy = parsed.policy.clone();
            match subject {
                "" if place == 0 && !rule.starts_with('=') => parsed.policy = kept.into(),
                subject if primitive(subject).is_some() => {
                    let primitives = primitive(subject).into_iter();
                    parsed.policy =
                        primitives.fold(policy, |policy, tag| policy.with_primitive(tag, kept));
                }
                _ => match subject.strip_prefix("run:") {
                    Some(name) if !name.is_empty() => parsed.runs.push((name.to_owned(), kept)),
                    _ => return Err(bad(format!("`{subject}` is nothing that has a rule"))),
                },
            }
        }
        Ok(parsed)
    }

    /// The policy, if it can be told before it is known which runs there are.
    pub(crate) fn without_runs(&self) -> Option<&RetentionPolicy> {
        self.runs.is_empty().then_some(&self.policy)
    }

    /// The policy, the id of each run that has a rule as `id_of` says.
    pub(crate) fn policy(
        &self,
        mut id_of: impl FnMut(&str) -> Result<RunId>,
    ) -> Result<RetentionPolicy> {
        self.runs.iter().try_fold(self.policy.clone(), |policy, (name, kept)| {
            let id = id_of(name).map_err(|failure: Failure| failure.of("--retention"))?;
            Ok(policy.with_run(id, *kept))
        })
    }
}

fn keep(text: &str) -> Option<Retention> {
    if text == "all" {
        return Some(Retention::KeepAll);
    }
    match text.split_once('+') {
        Some((n, time)) => Some(Retention::KeepLastOrFor(last(n)?, span(time)?)),
        None if text.starts_with("last:") => last(text).map(Retention::KeepLast),
        None => span(text).map(Retention::KeepFor),
    }
}

fn last(text: &str) -> Option<NonZeroU32> {
    text.strip_prefix("last:")?.parse().ok()
}

fn span(text: &str) -> Option<Duration> {
    let text = text.strip_prefix("for:")?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let number = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse().ok());
    let seconds = u64::checked_mul(number.flatten()?, seconds)?;
    (seconds > 0).then_some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn parse(spec: &str) -> RetentionSpec {
        RetentionSpec::parse(spec).unwrap()
    }

    #[test]
    fn every_form_means_what_it_says() {
        let three = NonZeroU32::new(3).unwrap();
        let cases = [
            ("all", Retention::KeepAll),
            ("last:1", Retention::NEWEST),
            ("last:3", Retention::KeepLast(three)),
            ("for:90s", Retention::KeepFor(Duration::from_secs(90))),
            ("for:1440m", Retention::KeepFor(DAY)),
            ("for:24h", Retention::KeepFor(DAY)),
            ("for:1d", Retention::KeepFor(DAY)),
            ("last:3+for:1d", Retention::KeepLastOrFor(three, DAY)),
        ];
        for (spec, kept) in cases {
            assert_eq!(parse(spec), RetentionSpec { policy: kept.into(), runs: vec![] }, "{spec}");
        }
    }

    #[test]
    fn primitives_and_runs_have_rules_of_their_own() {
        let spec = parse("last:3,kv=all,event=for:1d,run:a=b=all,run:c=last:1");
        assert_eq!(spec.without_runs(), None);
        let (a, c) = (RunId::from_bytes([1; 16]), RunId::from_bytes([2; 16]));
        let ids = |name: &str| match name {
            "a=b" => Ok(a),
            "c" => Ok(c),
            _ => Err(Failure::new("not_found", "no such run")),
        };
        let policy = spec.policy(ids).unwrap();
        assert_eq!(policy.default_rule(), Retention::KeepLast(NonZeroU32::new(3).unwrap()));
        assert_eq!(policy.of_primitive(TypeTag::Kv), Retention::KeepAll);
        assert_eq!(policy.of_primitive(TypeTag::Event), Retention::KeepFor(DAY));
        assert_eq!(policy.of_run(a), Some(Retention::KeepAll));
        assert_eq!(policy.of_run(c), Some(Retention::NEWEST));
        let failure = parse("run:d=all").policy(ids).unwrap_err();
        assert_eq!(
            (failure.kind.as_str(), failure.message.as_str()),
            ("not_found", "--retention: no such run")
        );
        assert_eq!(parse("kv=all").policy(ids).unwrap().default_rule(), Retention::NEWEST);
    }

    #[test]
    fn what_is_not_understood_shows_the_grammar() {
        let bad = [
            "",
            "last",
            "last:",
            "last:0",
            "last:-1",
            "last:x",
            "for:",
            "for:1",
            "for:0s",
            "for:h",
            "for:+1h",
            "for:1.5h",
            "for:1w",
            "for:1é",
            "for:99999999999999999999d",
            "all:1",
            "kv",
            "kv=",
            "=all",
            "x=all",
            "run:=all",
            "run=all",
            "all,all",
            "kv=all,all",
            "kv=all,kv=last:1",
            "all,",
            "last:2+last:3",
            "for:1h+last:2",
            "all+for:1h",
            "ALL",
        ];
        for spec in bad {
            let error = RetentionSpec::parse(spec).unwrap_err();
            assert!(error.contains("last:N+for:DURATION"), "{spec}: {error}");
        }
    }
}
