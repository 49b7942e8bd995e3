//! Cohorts: predicates over the attributes of entities.
//!
//! A cohort keeps signals of its own, of the same kind as those of an entity, under its own key:
//!
//! ```text
//! | namespace, Cohort | name of the cohort, escaped | name of the signal |
//! | SYSTEM, Cohort    | "cohorts" |                  the definitions, all in one value
//! ```
//!
//! Predicates and definitions are kept as values, in a form that JSON can have too:
//! `["eq", "country", "de"]`, `["in", "plan", "a", "b"]`, `["exists", "age"]`,
//! `["all", …predicates]`, `["any", …predicates]`, `["not", predicate]`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::key::{named_key, named_parts, named_prefix};
use crate::limits::{
    ATTRIBUTES_BYTES_MAX, ATTRIBUTES_MAX, COHORTS_MAX, NAME_BYTES_MAX, PREDICATE_BYTES_MAX,
    PREDICATE_DEPTH_MAX, PREDICATE_PARTS_MAX,
};
use crate::{Error, Key, NamespaceId, Result, TypeTag, Value};

/// What is said of an entity, by name.
pub type Attributes = BTreeMap<String, Value>;

/// Refuses attributes outside of the limits: [`ATTRIBUTES_MAX`] of them with names of up to
/// [`NAME_BYTES_MAX`] bytes, [`ATTRIBUTES_BYTES_MAX`] in all.
pub fn check_attributes(attributes: &Attributes) -> Result<()> {
    at_most("attributes", attributes.len(), ATTRIBUTES_MAX)?;
    attributes.keys().try_for_each(|name| check_name("attribute", name))?;
    let bytes = attributes.iter().map(|(name, value)| name.len() + value.encoded_len()).sum();
    at_most("bytes of attributes", bytes, ATTRIBUTES_BYTES_MAX)
}

const fn at_most(what: &'static str, count: usize, limit: usize) -> Result<()> {
    if count > limit { Err(Error::TooMany { what, count, limit }) } else { Ok(()) }
}

fn check_name(what: &'static str, name: &str) -> Result<()> {
    match name.len() {
        0 => Err(Error::EmptyName { what }),
        bytes if bytes > NAME_BYTES_MAX => {
            Err(Error::NameTooLong { what, bytes, limit: NAME_BYTES_MAX })
        }
        _ => Ok(()),
    }
}

/// How an attribute is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// It is that value: of the same kind, `Int(1)` is not `Float(1.0)`.
    Equal,
    /// It is there and another value.
    NotEqual,
    /// It is less. Numbers of one kind, texts and bytes have an order; of all else nothing is
    /// less or greater.
    Less,
    /// It is less, or equal and of a kind that has an order.
    LessOrEqual,
    /// It is greater.
    Greater,
    /// It is greater, or equal and of a kind that has an order.
    GreaterOrEqual,
}

impl Comparison {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Equal, "eq"),
        (Self::NotEqual, "ne"),
        (Self::Less, "lt"),
        (Self::LessOrEqual, "le"),
        (Self::Greater, "gt"),
        (Self::GreaterOrEqual, "ge"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(one, _)| *one == self).map_or("", |(_, name)| name)
    }

    fn holds(self, one: &Value, other: &Value) -> bool {
        let order = || match (one, other) {
            (Value::Int(one), Value::Int(other)) => Some(one.cmp(other)),
            (Value::Float(one), Value::Float(other)) => one.partial_cmp(other),
            (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
            (Value::Bytes(one), Value::Bytes(other)) => Some(one.cmp(other)),
            _ => None,
        };
        match self {
            Self::Equal => one == other,
            Self::NotEqual => one != other,
            Self::Less => order() == Some(Ordering::Less),
            Self::LessOrEqual => order().is_some_and(Ordering::is_le),
            Self::Greater => order() == Some(Ordering::Greater),
            Self::GreaterOrEqual => order().is_some_and(Ordering::is_ge),
        }
    }
}

/// What the attributes of an entity must be for it to be in a cohort.
///
/// Of an attribute that is not there nothing holds but what [`Predicate::Not`] turns round.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// The attribute of that name compares so with the value.
    Compare(String, Comparison, Value),
    /// The attribute of that name is one of the values.
    In(String, Vec<Value>),
    /// There is an attribute of that name.
    Exists(String),
    /// All of these hold; of none, always.
    All(Vec<Self>),
    /// One of these holds; of none, never.
    Any(Vec<Self>),
    /// This does not hold.
    Not(Box<Self>),
}

impl Predicate {
    fn compare(name: impl Into<String>, how: Comparison, value: impl Into<Value>) -> Self {
        Self::Compare(name.into(), how, value.into())
    }

    /// The attribute `name` is `value`.
    pub fn eq(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::compare(name, Comparison::Equal, value)
    }

    /// The attribute `name` is there and not `value`.
    pub fn ne(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::compare(name, Comparison::NotEqual, value)
    }

    /// The attribute `name` is less than `value`.
    pub fn lt(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::compare(name, Comparison::Less, value)
    }

    /// The attribute `name` is `value` at the most.
    pub fn le(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::compare(name, Comparison::LessOrEqual, value)
    }

    /// The attribute `name` is greater than `value`.
    pub fn gt(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::compare(name, Comparison::Greater, value)
    }

    /// The attribute `name` is `value` at least.
    pub fn ge(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::compare(name, Comparison::GreaterOrEqual, value)
    }

    /// The attribute `name` is one of `values`.
    pub fn is_in<V: Into<Value>>(
        name: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        Self::In(name.into(), values.into_iter().map(Into::into).collect())
    }

    /// There is an attribute `name`.
    pub fn exists(name: impl Into<String>) -> Self {
        Self::Exists(name.into())
    }

    /// Both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::All(vec![self, other])
    }

    /// One of both holds.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::Any(vec![self, other])
    }

    /// Whether it holds for these attributes.
    pub fn holds(&self, attributes: &Attributes) -> bool {
        match self {
            Self::Compare(name, how, value) => {
                attributes.get(name).is_some_and(|found| how.holds(found, value))
            }
            Self::In(name, values) => {
                attributes.get(name).is_some_and(|found| values.contains(found))
            }
            Self::Exists(name) => attributes.contains_key(name),
            Self::All(all) => all.iter().all(|one| one.holds(attributes)),
            Self::Any(any) => any.iter().any(|one| one.holds(attributes)),
            Self::Not(one) => !one.holds(attributes),
        }
    }

    /// Refuses what is outside of the limits.
    pub fn check(&self) -> Result<()> {
        at_most("parts of a predicate", self.check_parts(1)?, PREDICATE_PARTS_MAX)?;
        let mut bytes = Vec::new();
        self.to_value().encode(&mut bytes)?;
        at_most("bytes of a predicate", bytes.len(), PREDICATE_BYTES_MAX)
    }

    fn check_parts(&self, depth: usize) -> Result<usize> {
        at_most("levels of a predicate", depth, PREDICATE_DEPTH_MAX)?;
        let named = |name: &str, parts| check_name("attribute", name).map(|()| parts);
        match self {
            Self::Compare(name, ..) | Self::Exists(name) => named(name, 1),
            Self::In(name, values) => named(name, 1 + values.len()),
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().try_fold(1, |sum, part| Ok(sum + part.check_parts(depth + 1)?))
            }
            Self::Not(one) => Ok(1 + one.check_parts(depth + 1)?),
        }
    }

    /// As a value.
    pub fn to_value(&self) -> Value {
        let list = |word: &str, rest: Vec<Value>| {
            Value::List(std::iter::once(word.into()).chain(rest).collect())
        };
        let each = |parts: &[Self]| parts.iter().map(Self::to_value).collect();
        match self {
            Self::Compare(name, how, value) => {
                list(how.name(), vec![name.as_str().into(), value.clone()])
            }
            Self::In(name, values) => {
                let name = std::iter::once(Value::from(name.as_str()));
                list("in", name.chain(values.iter().cloned()).collect())
            }
            Self::Exists(name) => list("exists", vec![name.as_str().into()]),
            Self::All(all) => list("all", each(all)),
            Self::Any(any) => list("any", each(any)),
            Self::Not(one) => list("not", vec![one.to_value()]),
        }
    }

    /// From such a value, checked.
    pub fn from_value(value: &Value) -> Result<Self> {
        let predicate = Self::read(value, 1)?;
        predicate.check()?;
        Ok(predicate)
    }

    fn read(value: &Value, depth: usize) -> Result<Self> {
        at_most("levels of a predicate", depth, PREDICATE_DEPTH_MAX)?;
        let Value::List(list) = value else { return Err(malformed("a list was expected")) };
        let Some((Value::String(word), rest)) = list.split_first() else {
            return Err(malformed("it does not begin with a word"));
        };
        let each = || rest.iter().map(|part| Self::read(part, depth + 1)).collect::<Result<_>>();
        Ok(match (word.as_str(), rest) {
            ("all", _) => Self::All(each()?),
            ("any", _) => Self::Any(each()?),
            ("not", [one]) => Self::Not(Box::new(Self::read(one, depth + 1)?)),
            ("exists", [Value::String(name)]) => Self::Exists(name.clone()),
            ("in", [Value::String(name), values @ ..]) => Self::In(name.clone(), values.to_vec()),
            (word, [Value::String(name), value]) => {
                let how = Comparison::ALL.iter().find(|(_, name)| *name == word);
                let (how, _) = how.ok_or_else(|| malformed("an unknown word"))?;
                Self::Compare(name.clone(), *how, value.clone())
            }
            _ => return Err(malformed("an unknown word, or not what belongs to it")),
        })
    }
}

const fn malformed(reason: &'static str) -> Error {
    Error::Malformed { what: "predicate", reason, at: 0 }
}

/// A cohort: who is in it, by a version that grows when that is changed.
#[derive(Debug, Clone, PartialEq)]
pub struct CohortDefinition {
    /// From 1 on.
    pub version: u32,
    /// Who is in it.
    pub predicate: Predicate,
}

/// All cohorts of a database, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cohorts(BTreeMap<String, CohortDefinition>);

const VERSION: &str = "version";
const PREDICATE: &str = "predicate";

impl Cohorts {
    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &CohortDefinition)> {
        self.0.iter().map(|(name, definition)| (name.as_str(), definition))
    }

    /// The one of this name.
    pub fn find(&self, name: &str) -> Option<&CohortDefinition> {
        self.0.get(name)
    }

    /// Gives a name this definition, whatever it had.
    pub fn set(&mut self, name: &str, definition: CohortDefinition) -> Result<()> {
        check_name(WHAT, name)?;
        definition.predicate.check()?;
        let count = self.0.len() + usize::from(!self.0.contains_key(name));
        at_most("cohorts", count, COHORTS_MAX)?;
        self.0.insert(name.to_owned(), definition);
        Ok(())
    }

    /// As a value, which is how a database keeps them.
    pub fn to_value(&self) -> Value {
        let definition = |CohortDefinition { version, predicate }: &CohortDefinition| {
            let version = (VERSION.to_owned(), Value::Int((*version).into()));
            Value::Map([version, (PREDICATE.to_owned(), predicate.to_value())].into())
        };
        Value::Map(self.0.iter().map(|(name, one)| (name.clone(), definition(one))).collect())
    }

    /// From such a value.
    pub fn from_value(value: &Value) -> Result<Self> {
        let Value::Map(all) = value else { return Err(malformed("cohorts are a map")) };
        let mut cohorts = Self::default();
        for (name, definition) in all {
            let Value::Map(fields) = definition else {
                return Err(malformed("a cohort is a map"));
            };
            let version = fields.get(VERSION).and_then(Value::as_int);
            let version = version.and_then(|version| u32::try_from(version).ok());
            let (Some(version), Some(predicate)) = (version, fields.get(PREDICATE)) else {
                return Err(malformed("a cohort has a version and a predicate"));
            };
            let predicate = Predicate::from_value(predicate)?;
            cohorts.set(name, CohortDefinition { version, predicate })?;
        }
        Ok(cohorts)
    }
}

const WHAT: &str = "cohort";

/// The key of all definitions.
pub fn cohorts_key() -> Result<Key> {
    Key::new(NamespaceId::SYSTEM, TypeTag::Cohort, b"cohorts")
}

/// The key of what the cohort `name` in `namespace` has of the signal `signal`.
pub fn ledger_key(namespace: NamespaceId, name: &str, signal: &str) -> Result<Key> {
    crate::signal::check_signal_name(signal)?;
    named_key(namespace, TypeTag::Cohort, WHAT, name, signal.as_bytes())
}

/// What every such key of the cohort begins with, and no key of another.
pub fn ledger_prefix(namespace: NamespaceId, name: &str) -> Result<Vec<u8>> {
    named_prefix(namespace, TypeTag::Cohort, WHAT, name)
}

/// Names of cohort and signal in such a key; `None` if it is not one.
pub fn ledger_of(stored: &[u8]) -> Option<(String, String)> {
    let (cohort, signal) = named_parts(stored)?;
    let signal = String::from_utf8(signal.to_vec()).ok()?;
    (!signal.is_empty()).then_some((cohort, signal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attributes(of: &[(&str, Value)]) -> Attributes {
        of.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-2i64..3).prop_map(Value::Int),
            (-2i32..3).prop_map(|n| Value::Float(f64::from(n))),
            "[ab]{0,2}".prop_map(Value::String),
            prop::collection::vec(0u8..2, 0..2).prop_map(Value::Bytes),
        ]
    }

    fn predicate() -> impl Strategy<Value = Predicate> {
        let how = prop::sample::select(Comparison::ALL.map(|(how, _)| how).to_vec());
        let leaf = prop_oneof![
            ("[xy]", how, value())
                .prop_map(|(name, how, value)| Predicate::compare(name, how, value)),
            ("[xy]", prop::collection::vec(value(), 0..3))
                .prop_map(|(name, values)| Predicate::In(name, values)),
            "[xy]".prop_map(Predicate::Exists),
        ];
        leaf.prop_recursive(4, 20, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Predicate::All),
                prop::collection::vec(inner.clone(), 0..3).prop_map(Predicate::Any),
                inner.prop_map(|one| Predicate::Not(Box::new(one))),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_predicate_reads_back_as_it_was_written(predicate in predicate()) {
            prop_assert_eq!(Predicate::from_value(&predicate.to_value())?, predicate);
        }

        #[test]
        fn no_value_makes_reading_panic(value in value(), word in "[a-z]{0,3}", depth in 0..40u32) {
            let list = Value::List(vec![Value::String(word), value]);
            let deep = (0..depth).fold(list, |inner, _| Value::List(vec!["not".into(), inner]));
            let _ = Predicate::from_value(&deep);
            let _ = Cohorts::from_value(&deep);
        }

        #[test]
        fn what_is_less_is_not_greater_and_one_kind_is_all_that_has_an_order(
            one in value(), other in value()
        ) {
            let holds = |how: Comparison| how.holds(&one, &other);
            let orders = [Comparison::Less, Comparison::Greater].map(holds);
            prop_assert!(orders != [true, true]);
            prop_assert_eq!(holds(Comparison::LessOrEqual) || holds(Comparison::GreaterOrEqual),
                std::mem::discriminant(&one) == std::mem::discriminant(&other)
                    && !matches!(one, Value::Null | Value::Bool(_)));
            prop_assert_ne!(holds(Comparison::Equal), holds(Comparison::NotEqual));
        }
    }

    #[test]
    fn comparisons_say_what_their_names_say() {
        let found = attributes(&[("age", 30.into()), ("plan", "pro".into())]);
        let cases = [
            (Predicate::eq("age", 30), true),
            (Predicate::eq("age", 30.0), false),
            (Predicate::ne("age", 30.0), true),
            (Predicate::ne("age", 30), false),
            (Predicate::lt("age", 31), true),
            (Predicate::lt("age", 30), false),
            (Predicate::le("age", 30), true),
            (Predicate::gt("age", 29), true),
            (Predicate::gt("age", 30), false),
            (Predicate::ge("age", 30), true),
            (Predicate::ge("age", "30"), false),
            (Predicate::is_in("plan", ["free", "pro"]), true),
            (Predicate::is_in("plan", ["free"]), false),
            (Predicate::exists("age"), true),
            (Predicate::exists("name"), false),
            (Predicate::ne("name", "x"), false),
            (Predicate::Not(Box::new(Predicate::eq("name", "x"))), true),
            (Predicate::eq("age", 30).and(Predicate::eq("plan", "free")), false),
            (Predicate::eq("age", 30).or(Predicate::eq("plan", "free")), true),
            (Predicate::All(vec![]), true),
            (Predicate::Any(vec![]), false),
        ];
        for (predicate, due) in cases {
            assert_eq!(predicate.holds(&found), due, "{predicate:?}");
        }
    }

    #[test]
    fn refuses_what_is_outside_of_the_limits() {
        let is_refused = |predicate: &Predicate| {
            assert!(matches!(predicate.check(), Err(Error::TooMany { .. })), "{predicate:?}");
            assert!(Predicate::from_value(&predicate.to_value()).is_err());
        };
        let deep = |levels| {
            (1..levels).fold(Predicate::exists("x"), |one, _| Predicate::Not(Box::new(one)))
        };
        deep(PREDICATE_DEPTH_MAX).check().unwrap();
        is_refused(&deep(PREDICATE_DEPTH_MAX + 1));
        let wide = |parts| Predicate::Any(vec![Predicate::exists("x"); parts - 1]);
        wide(PREDICATE_PARTS_MAX).check().unwrap();
        is_refused(&wide(PREDICATE_PARTS_MAX + 1));
        is_refused(&Predicate::is_in("x", vec![1; PREDICATE_PARTS_MAX]));
        is_refused(&Predicate::eq("x", "x".repeat(PREDICATE_BYTES_MAX).as_str()));
        assert_eq!(Predicate::exists("").check(), Err(Error::EmptyName { what: "attribute" }));
        assert_eq!(Predicate::eq("x", f64::NAN).check(), Err(Error::NotANumber));

        let many = |n: usize| (0..n).map(|n| (n.to_string(), Value::Null)).collect::<Attributes>();
        check_attributes(&many(ATTRIBUTES_MAX)).unwrap();
        assert!(check_attributes(&many(ATTRIBUTES_MAX + 1)).is_err());
        let large = Value::Bytes(vec![0; ATTRIBUTES_BYTES_MAX]);
        assert!(check_attributes(&attributes(&[("x", large)])).is_err());
        assert!(check_attributes(&attributes(&[("", Value::Null)])).is_err());

        let mut cohorts = Cohorts::default();
        let definition = CohortDefinition { version: 1, predicate: Predicate::exists("x") };
        for n in 0..COHORTS_MAX {
            cohorts.set(&n.to_string(), definition.clone()).unwrap();
        }
        cohorts.set("0", definition.clone()).unwrap();
        assert!(matches!(cohorts.set("x", definition), Err(Error::TooMany { .. })));
        assert_eq!(Cohorts::from_value(&cohorts.to_value()).unwrap(), cohorts);
    }
}
