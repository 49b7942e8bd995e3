//! Random bits, from the system or from a seed.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// A source of random bits, for run ids and for the random half of an epoch.
///
/// These are identifiers, not secrets. A seeded source makes a whole run of the database
/// reproducible.
#[derive(Debug, Clone)]
pub struct Entropy(Arc<Mutex<fastrand::Rng>>);

impl Entropy {
    /// Seeded by the operating system (through the standard library's hasher keys), the
    /// process id and the time.
    pub fn system() -> Self {
        let mut hasher = std::hash::RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        if let Ok(now) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
            hasher.write_u128(now.as_nanos());
        }
        Self::seeded(hasher.finish())
    }

    /// The same bits for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// The next 64 bits.
    pub fn next_u64(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }

    /// The next 128 bits, as bytes.
    pub fn next_16(&self) -> [u8; 16] {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rng.u128(..).to_le_bytes()
    }
}
