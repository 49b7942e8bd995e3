//! Every row of the table, and round trips of whatever comes to mind.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::fmt::Debug;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ConversionProblem as Problem, from_value, to_value};
use crate::Value;
use crate::limits::{VALUE_BYTES_MAX, VALUE_DEPTH_MAX};
use crate::value::tests::values;

fn text(text: &str) -> Value {
    Value::String(text.into())
}

fn list(items: impl IntoIterator<Item = i64>) -> Value {
    Value::List(items.into_iter().map(Value::Int).collect())
}

fn map<const N: usize>(items: [(&str, Value); N]) -> Value {
    Value::Map(items.map(|(name, item)| (name.to_owned(), item)).into())
}

/// `x` is stored as `value` and comes back.
fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(x: T, value: Value) {
    assert_eq!(to_value(&x).unwrap(), value);
    assert_eq!(from_value::<T>(value).unwrap(), x);
}

/// `x` is not stored.
fn refused<T: Serialize + Debug>(x: T, path: &str, problem: Problem) {
    let error = to_value(&x).unwrap_err();
    assert_eq!((error.path().as_str(), error.problem()), (path, &problem), "{x:?}");
}

/// `value` is no `T`.
fn unreadable<T: DeserializeOwned + Debug>(value: Value) {
    let read = from_value::<T>(value.clone());
    assert!(read.is_err(), "{value:?} was read as {read:?}");
}

fn too_large(n: impl ToString) -> Problem {
    Problem::IntegerTooLarge(n.to_string())
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Newtype(i64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pair(i64, char);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Point {
    x: i64,
    y: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Colour {
    Red,
    Green,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Line(i64, i64),
    Corner { point: Point },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Step { n: i64 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Float(f64),
    Text(String),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flattened {
    id: i64,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

fn scalars() -> Vec<(&'static str, fn())> {
    vec![
        ("`bool`", || {
            same(true, Value::Bool(true));
            unreadable::<bool>(Value::Int(1));
        }),
        ("`i8` to `i64`, `u8` to `u32`", || {
            same(i8::MIN, Value::Int(-128));
            same(i64::MIN, Value::Int(i64::MIN));
            same(u32::MAX, Value::Int(u32::MAX.into()));
            unreadable::<i8>(Value::Int(128));
            unreadable::<u8>(Value::Int(-1));
            unreadable::<i64>(Value::Float(1.0));
            unreadable::<i64>(text("1"));
        }),
        ("`u64`, `i128`, `u128` up to `i64::MAX`", || {
            let most = i64::MAX.unsigned_abs();
            same(most, Value::Int(i64::MAX));
            same(i128::from(i64::MIN), Value::Int(i64::MIN));
            same(u128::from(most), Value::Int(i64::MAX));
            unreadable::<u64>(Value::Int(-1));
        }),
        ("`u64`, `i128`, `u128` beyond `i64`", || {
            let most = i64::MAX.unsigned_abs();
            refused(most + 1, "$", too_large(most + 1));
            refused(vec![0, u64::MAX], "$[1]", too_large(u64::MAX));
            refused(i128::from(i64::MIN) - 1, "$", too_large(i128::from(i64::MIN) - 1));
            refused(u128::MAX, "$", too_large(u128::MAX));
        }),
        ("`f64`", || {
            for x in [1.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 0.1 + 0.2] {
                same(x, Value::Float(x));
                assert_eq!(from_value::<f64>(Value::Float(x)).unwrap().to_bits(), x.to_bits());
            }
            unreadable::<f64>(Value::Int(1));
        }),
        ("`f32`", || {
            same(0.1f32, Value::Float(f64::from(0.1f32)));
            same(f32::INFINITY, Value::Float(f64::INFINITY));
            unreadable::<f32>(Value::Float(0.1));
            unreadable::<f32>(Value::Float(1e300));
            unreadable::<f32>(Value::Int(1));
        }),
        ("NaN", || {
            refused(f64::NAN, "$", Problem::NotANumber);
            refused(vec![f32::NAN], "$[0]", Problem::NotANumber);
            unreadable::<f64>(Value::Float(f64::NAN));
            unreadable::<f32>(Value::Float(f64::NAN));
        }),
        ("`char`, `String`", || {
            same('ß', text("ß"));
            same(String::from("a\0b"), text("a\0b"));
            unreadable::<char>(text("ab"));
            unreadable::<String>(Value::Bytes(b"ab".to_vec()));
        }),
        ("bytes (`serialize_bytes`, as `serde_bytes` and `CString` do)", || {
            same(CString::new("ab").unwrap(), Value::Bytes(b"ab".to_vec()));
            unreadable::<CString>(text("ab"));
        }),
        ("`Vec<u8>` without `serde_bytes`", || {
            same(vec![1u8, 2], list([1, 2]));
            unreadable::<Vec<u8>>(Value::Bytes(vec![1, 2]));
        }),
        ("`()`, unit struct", || {
            same((), Value::Null);
            same(Unit, Value::Null);
            unreadable::<()>(Value::List(vec![]));
        }),
    ]
}

fn compounds() -> Vec<(&'static str, fn())> {
    vec![
        ("`None`", || same(None::<i64>, Value::Null)),
        ("`Some(x)`", || {
            same(Some(3), Value::Int(3));
            same(Some(Some("a".to_owned())), text("a"));
        }),
        ("`Some(None)`, `Some(())`", || {
            refused(Some(None::<i64>), "$", Problem::SomeOfNothing);
            refused(Some(()), "$", Problem::SomeOfNothing);
            refused(vec![Some(Some(1)), Some(None)], "$[1]", Problem::SomeOfNothing);
        }),
        ("`Vec`, set, array, tuple, tuple struct", || {
            same(vec![1, 2], list([1, 2]));
            same(BTreeSet::from([1, 2]), list([1, 2]));
            same([1, 2], list([1, 2]));
            same((1, "a".to_owned()), Value::List(vec![Value::Int(1), text("a")]));
            same(Pair(1, 'a'), Value::List(vec![Value::Int(1), text("a")]));
            unreadable::<[i64; 2]>(list([1, 2, 3]));
            unreadable::<(i64, i64)>(list([1]));
            unreadable::<(i64, i64)>(list([1, 2, 3]));
        }),
        ("newtype struct", || same(Newtype(4), Value::Int(4))),
        ("struct, map with text as keys", || {
            same(Point { x: 1, y: None }, map([("x", Value::Int(1)), ("y", Value::Null)]));
            same(HashMap::from([("a b".to_owned(), 1)]), map([("a b", Value::Int(1))]));
            unreadable::<Point>(list([1, 2]));
            unreadable::<Point>(map([("y", Value::Int(1))]));
        }),
        ("map with integers, `bool`, `char`, unit variants as keys", || {
            same(BTreeMap::from([(-1, 'a')]), map([("-1", text("a"))]));
            same(
                BTreeMap::from([(u128::MAX, ())]),
                map([("340282366920938463463374607431768211455", Value::Null)]),
            );
            same(BTreeMap::from([(true, 1)]), map([("true", Value::Int(1))]));
            same(BTreeMap::from([('c', 1)]), map([("c", Value::Int(1))]));
            same(BTreeMap::from([(Colour::Green, 1)]), map([("Green", Value::Int(1))]));
            for no_integer in ["01", "+1", "1.0", "", " 1"] {
                unreadable::<BTreeMap<i64, i64>>(map([(no_integer, Value::Int(1))]));
            }
            unreadable::<BTreeMap<u8, i64>>(map([("256", Value::Int(1))]));
        }),
        ("map with other keys", || {
            refused(BTreeMap::from([((1, 2), 3)]), "$", Problem::MapKey("a tuple"));
            refused(BTreeMap::from([(None::<i64>, 3)]), "$", Problem::MapKey("an option"));
            refused(BTreeMap::from([(vec![1], 3)]), "$", Problem::MapKey("a list"));
        }),
        ("unit variant", || {
            same(Shape::Nothing, text("Nothing"));
            unreadable::<Shape>(text("Anything"));
            unreadable::<Shape>(map([("Nothing", Value::Null)]));
        }),
        ("newtype, tuple, struct variant", || {
            same(Shape::Circle(1.0), map([("Circle", Value::Float(1.0))]));
            same(Shape::Line(1, 2), map([("Line", list([1, 2]))]));
            let point = map([("x", Value::Int(1)), ("y", Value::Null)]);
            let corner = Shape::Corner { point: Point { x: 1, y: None } };
            same(corner, map([("Corner", map([("point", point)]))]));
            unreadable::<Shape>(text("Circle"));
            unreadable::<Shape>(map([("Circle", Value::Int(1))]));
            unreadable::<Shape>(map([("Line", list([1, 2, 3]))]));
            unreadable::<Shape>(map([]));
            unreadable::<Shape>(map([("Nothing", Value::Null), ("Line", list([1, 2]))]));
        }),
        ("`Value`", || {
            let value = map([("bytes", Value::Bytes(vec![1])), ("ints", list([1]))]);
            same(value.clone(), value);
            refused(
                Value::List(vec![Value::Float(f64::NAN)]),
                "$[0]",
                Problem::Mismatch(Problem::NotANumber.to_string()),
            );
        }),
        ("flattened, untagged, internally tagged", || {
            same(Tagged::Step { n: 1 }, map([("kind", text("Step")), ("n", Value::Int(1))]));
            same(
                Flattened { id: 1, rest: BTreeMap::from([("a".into(), Value::Bool(true))]) },
                map([("id", Value::Int(1)), ("a", Value::Bool(true))]),
            );
            same(Untagged::Text("a".into()), text("a"));
            assert_eq!(from_value::<Untagged>(Value::Int(1)).unwrap(), Untagged::Float(1.0));
            let twice = BTreeMap::from([("id".into(), Value::Null)]);
            refused(Flattened { id: 1, rest: twice }, "$.id", Problem::DuplicateKey);
        }),
    ]
}

#[test]
fn every_row_of_the_table_holds() {
    let table: Vec<&str> = include_str!("../typed.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "))
        .map(|row| row.split(" | ").next().unwrap())
        .filter(|row| *row != "Rust")
        .collect();
    let rows = [scalars(), compounds()].concat();
    assert_eq!(table, rows.iter().map(|(row, _)| *row).collect::<Vec<_>>());
    for (row, holds) in rows {
        println!("{row}");
        holds();
    }
}

#[test]
fn errors_say_where() {
    let line = |a| Shape::Line(a, 2);
    let value = to_value(&BTreeMap::from([("two words", vec![line(1), line(2)])])).unwrap();
    let error = from_value::<BTreeMap<String, Vec<Pair>>>(value.clone()).unwrap_err();
    assert_eq!(error.path(), "$[\"two words\"][0]");
    let error = from_value::<BTreeMap<String, (Shape, BTreeMap<String, Pair>)>>(value).unwrap_err();
    assert_eq!(error.path(), "$[\"two words\"][1].Line[1]");
    let error = from_value::<Point>(map([("x", text("a"))])).unwrap_err();
    assert_eq!(error.to_string(), "$.x: invalid type: string \"a\", expected i64");
    let error = to_value(&Shape::Circle(f64::NAN)).unwrap_err();
    assert_eq!((error.path().as_str(), error.problem()), ("$.Circle", &Problem::NotANumber));
}

/// As deep as `levels` lists.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Deep(Vec<Deep>);

fn deep(levels: usize) -> (Deep, Value) {
    let (mut deep, mut value) = (Deep(vec![]), Value::List(vec![]));
    for _ in 1..levels {
        (deep, value) = (Deep(vec![deep]), Value::List(vec![value]));
    }
    (deep, value)
}

#[test]
fn what_is_stored_at_the_limits_is_converted_and_nothing_beyond() {
    // The root is at depth 0.
    let (x, value) = deep(VALUE_DEPTH_MAX + 1);
    value.encode(&mut Vec::new()).unwrap();
    same(x, value.clone());
    same(value.clone(), value);
    let (x, value) = deep(VALUE_DEPTH_MAX + 2);
    value.encode(&mut Vec::new()).unwrap_err();
    assert_eq!(to_value(&x).unwrap_err().problem(), &Problem::TooDeep);
    assert_eq!(to_value(&value).unwrap_err().problem(), &Problem::TooDeep);
    assert_eq!(from_value::<Deep>(value.clone()).unwrap_err().problem(), &Problem::TooDeep);
    unreadable::<Value>(value);

    let bytes = CString::new(vec![1; VALUE_BYTES_MAX - 1]).unwrap();
    to_value(&bytes).unwrap().encode(&mut Vec::new()).unwrap();
    refused(("", CString::new(vec![1; VALUE_BYTES_MAX]).unwrap()), "$[1]", Problem::TooLarge);
    // Only the lengths in between are too much.
    let half = "a".repeat(VALUE_BYTES_MAX / 2 - 2);
    refused((half.as_str(), half.as_str()), "$", Problem::TooLarge);
}

#[test]
fn what_never_ends_is_refused_before_it_fills_the_memory() {
    struct Endless;
    impl Serialize for Endless {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(std::iter::repeat(1))
        }
    }
    assert_eq!(to_value(&Endless).unwrap_err().problem(), &Problem::TooLarge);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    flag: bool,
    small: (i8, u8, i16, u16),
    counts: BTreeMap<i32, u32>,
    large: i64,
    ratio: f32,
    letter: char,
    name: Option<String>,
    tree: Vec<Everything>,
    shapes: Vec<Shape>,
    colours: BTreeMap<Colour, Newtype>,
    nothing: (),
    raw: CString,
    any: Value,
    #[serde(rename = "two words", default, skip_serializing_if = "Option::is_none")]
    renamed: Option<Box<Pair>>,
}

prop_compose! {
    fn points()(x: i64, y: Option<i64>) -> Point {
        Point { x, y }
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Nothing),
        any::<f64>().prop_filter("not NaN", |x| !x.is_nan()).prop_map(Shape::Circle),
        any::<(i64, i64)>().prop_map(|(a, b)| Shape::Line(a, b)),
        points().prop_map(|point| Shape::Corner { point }),
    ]
}

prop_compose! {
    fn leaves()(
        (flag, small, large, letter) in any::<(bool, (i8, u8, i16, u16), i64, char)>(),
        counts in prop::collection::btree_map(any::<i32>(), any::<u32>(), 0..4),
        ratio in any::<f32>().prop_filter("not NaN", |x| !x.is_nan()),
        name in prop::option::of(".{0,8}"),
        shapes in prop::collection::vec(shapes(), 0..4),
        red: Option<i64>,
        raw in prop::collection::vec(1..=255u8, 0..8),
        any in values(),
        renamed in any::<Option<(i64, char)>>(),
    ) -> Everything {
        Everything {
            flag, small, counts, large, ratio, letter, name, shapes, any,
            tree: Vec::new(),
            colours: red.map(|n| (Colour::Red, Newtype(n))).into_iter().collect(),
            nothing: (),
            raw: CString::new(raw).unwrap(),
            renamed: renamed.map(|(n, c)| Box::new(Pair(n, c))),
        }
    }
}

fn everything() -> impl Strategy<Value = Everything> {
    leaves().prop_recursive(3, 8, 3, |inner| {
        (leaves(), prop::collection::vec(inner, 0..3))
            .prop_map(|(leaf, tree)| Everything { tree, ..leaf })
    })
}

proptest! {
    #[test]
    fn every_value_is_itself(value in values()) {
        prop_assert_eq!(&to_value(&value).unwrap(), &value);
        prop_assert_eq!(&from_value::<Value>(value.clone()).unwrap(), &value);
    }

    #[test]
    fn a_type_with_everything_round_trips_by_its_stored_bytes(x in everything()) {
        let mut bytes = Vec::new();
        to_value(&x).unwrap().encode(&mut bytes).unwrap();
        prop_assert_eq!(from_value::<Everything>(Value::decode(&bytes).unwrap()).unwrap(), x);
    }

    #[test]
    fn no_value_makes_a_type_panic_and_what_it_takes_it_gives_back(value in values()) {
        if let Ok(x) = from_value::<Shape>(value.clone()) {
            prop_assert_eq!(to_value(&x).unwrap(), value.clone());
        }
        if let Ok(x) = from_value::<BTreeMap<i64, Value>>(value.clone()) {
            prop_assert_eq!(to_value(&x).unwrap(), value);
        }
    }
}

#[cfg(feature = "json")]
mod json {
    use super::*;
    use serde_json::{Value as Json, json};

    /// Whether JSON has a form for it.
    fn fits(value: &Value) -> bool {
        match value {
            Value::Bytes(_) => false,
            Value::Float(x) => x.is_finite(),
            Value::List(items) => items.iter().all(fits),
            Value::Map(items) => items.values().all(fits),
            _ => true,
        }
    }

    proptest! {
        #[test]
        fn a_value_goes_to_json_and_back_or_is_refused(value in values()) {
            match Json::try_from(value.clone()) {
                Ok(json) => {
                    prop_assert!(fits(&value));
                    prop_assert_eq!(Value::try_from(json).unwrap(), value);
                }
                Err(_) => prop_assert!(!fits(&value)),
            }
        }
    }

    #[test]
    fn integers_and_floats_stay_what_they_are() {
        let json = json!({"a": [1, 1.0, -0.0, null, true, "x"], "b": {}});
        let value = Value::try_from(json.clone()).unwrap();
        let items = [
            Value::Int(1),
            Value::Float(1.0),
            Value::Float(-0.0),
            Value::Null,
            Value::Bool(true),
            text("x"),
        ];
        assert_eq!(value, map([("a", Value::List(items.to_vec())), ("b", map([]))]));
        assert_eq!(Json::try_from(value).unwrap().to_string(), json.to_string());
    }

    #[test]
    fn refuses_by_name_what_has_no_form_on_the_other_side() {
        let error = Value::try_from(json!({"a": [0, u64::MAX]})).unwrap_err();
        assert_eq!((error.path().as_str(), error.problem()), ("$.a[1]", &too_large(u64::MAX)));
        let refused = |value: Value| Json::try_from(map([("a", value)])).unwrap_err().to_string();
        assert_eq!(refused(Value::Bytes(vec![])), "$.a: JSON has no form for bytes");
        assert_eq!(
            refused(Value::Float(f64::INFINITY)),
            "$.a: JSON has no form for an infinite float"
        );
        assert!(refused(Value::Float(f64::NAN)).starts_with("$.a: a NaN"));
        let (_, value) = deep(VALUE_DEPTH_MAX + 2);
        assert_eq!(Json::try_from(value).unwrap_err().problem(), &Problem::TooDeep);
        let json = (0..=VALUE_DEPTH_MAX).fold(json!(1), |json, _| json!([json]));
        assert_eq!(Value::try_from(json).unwrap_err().problem(), &Problem::TooDeep);
    }

    #[test]
    fn json_text_is_read_as_a_value_and_what_is_ambiguous_is_refused() {
        let read = |text: &str| serde_json::from_str::<Value>(text).map_err(|e| e.to_string());
        assert_eq!(read(r#"[1, 1.0, null]"#).unwrap(), {
            Value::List(vec![Value::Int(1), Value::Float(1.0), Value::Null])
        });
        assert!(read(r#"{"a": 1, "a": 2}"#).unwrap_err().contains("the key is there twice"));
        assert!(read("18446744073709551615").unwrap_err().contains("does not fit"));
        assert!(serde_json::to_string(&Value::Float(f64::NAN)).is_err());
        let nested = "[".repeat(VALUE_DEPTH_MAX + 2) + &"]".repeat(VALUE_DEPTH_MAX + 2);
        assert!(read(&nested).unwrap_err().contains("nested deeper"));
    }
}
