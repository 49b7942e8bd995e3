//! Key-values of Rust types: the same calls, with a conversion in front or behind.

use serde_core::{Serialize, de::DeserializeOwned};
use steadfast_core::VersionedValue;
use steadfast_core::typed::{from_value, to_value};

use crate::commit::Receipt;
use crate::database::Database;
use crate::error::Result;
use crate::runs::Run;
use crate::transaction::Transaction;
use crate::view::View;

fn read<T: DeserializeOwned>(found: Option<VersionedValue>) -> Result<Option<T>> {
    Ok(found.map(|found| from_value(found.value)).transpose()?)
}

impl View {
    /// [`View::kv_get`] as a `T`.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if the value is no `T`.
    pub fn kv_get_as<T: DeserializeOwned>(
        &self,
        run: Run,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<T>> {
        read(self.kv_get(run, key)?)
    }
}

impl Transaction {
    /// [`Transaction::kv_get`] as a `T`.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if the value is no `T`.
    pub fn kv_get_as<T: DeserializeOwned>(
        &mut self,
        run: Run,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<T>> {
        read(self.kv_get(run, key)?)
    }

    /// [`Transaction::kv_put`] of a `T`.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if no value holds it.
    pub fn kv_put_as<T: Serialize + ?Sized>(
        &mut self,
        run: Run,
        key: impl AsRef<[u8]>,
        value: &T,
    ) -> Result<()> {
        self.kv_put(run, key, to_value(value)?)
    }
}

impl Database {
    /// [`Database::kv_get`] as a `T`.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if the value is no `T`.
    pub fn kv_get_as<T: DeserializeOwned>(
        &self,
        run: Run,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<T>> {
        read(self.kv_get(run, key)?)
    }

    /// [`Database::kv_put`] of a `T`.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if no value holds it.
    pub fn kv_put_as<T: Serialize + ?Sized>(
        &self,
        run: Run,
        key: impl AsRef<[u8]>,
        value: &T,
    ) -> Result<Receipt> {
        self.kv_put(run, key, to_value(value)?)
    }
}
