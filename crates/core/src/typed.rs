//! Values from and to Rust types, by serde (feature `serde`), and from and to
//! `serde_json::Value` (feature `json`).
//!
//! [`to_value`] and [`from_value`] do not convert between kinds: an `Int` is never read as a
//! float, text never as bytes. What could not come back as it went in is refused when it is
//! written, with the place in the error. Derived types need nothing but serde's `derive`.
//!
//! # What round-trips
//!
//! | Rust | value | comes back |
//! |---|---|---|
//! | `bool` | `Bool` | the same |
//! | `i8` to `i64`, `u8` to `u32` | `Int` | the same; one that does not fit the type is refused |
//! | `u64`, `i128`, `u128` up to `i64::MAX` | `Int` | the same |
//! | `u64`, `i128`, `u128` beyond `i64` | – | refused when written |
//! | `f64` | `Float` | the same, bit for bit, with `-0.0` and infinities |
//! | `f32` | `Float` | the same; a `Float` that is no `f32` is refused |
//! | NaN | – | refused when written and when read |
//! | `char`, `String` | `String` | the same |
//! | bytes (`serialize_bytes`, as `serde_bytes` and `CString` do) | `Bytes` | the same |
//! | `Vec<u8>` without `serde_bytes` | `List` of `Int` | the same; from `Bytes` it is refused |
//! | `()`, unit struct | `Null` | the same |
//! | `None` | `Null` | the same |
//! | `Some(x)` | as `x` | the same |
//! | `Some(None)`, `Some(())` | – | refused when written: it would come back as `None` |
//! | `Vec`, set, array, tuple, tuple struct | `List` | the same; another length than a tuple's is refused |
//! | newtype struct | as what it holds | the same |
//! | struct, map with text as keys | `Map` | the same |
//! | map with integers, `bool`, `char`, unit variants as keys | `Map`, keys as text | the same; `"01"` is no integer |
//! | map with other keys | – | refused when written |
//! | unit variant | `String`, its name | the same |
//! | newtype, tuple, struct variant | `Map` of its name to its content | the same |
//! | `Value` | itself | the same; NaN, too deep and too large are refused |
//! | flattened, untagged, internally tagged | what serde makes of it | through a buffer of serde's, where an `Int` is taken for a float |
//!
//! The limits of [`limits`](crate::limits) hold: nothing deeper than `VALUE_DEPTH_MAX`, nothing
//! larger than `VALUE_BYTES_MAX`. Types that ask are told that the format is for people to read,
//! so times and addresses are text.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use steadfast_core::Value;
//! use steadfast_core::typed::{from_value, to_value};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Goal {
//!     text: String,
//!     steps: Vec<u64>,
//! }
//!
//! let goal = Goal { text: "fix the parser".into(), steps: vec![1, 2] };
//! let value = to_value(&goal)?;
//! assert_eq!(from_value::<Goal>(value)?, goal);
//!
//! let error = to_value(&Goal { steps: vec![1, u64::MAX], ..goal }).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "$.steps[1]: the integer 18446744073709551615 does not fit into 64 bits with a sign"
//! );
//! assert!(from_value::<f64>(Value::Int(1)).is_err());
//! # Ok::<(), steadfast_core::typed::ConversionError>(())
//! ```

mod deserializer;
mod error;
#[cfg(feature = "json")]
mod json;
mod serializer;
#[cfg(test)]
mod tests;
mod value;

pub use deserializer::from_value;
pub use error::{ConversionError, ConversionProblem};
pub use serializer::to_value;
