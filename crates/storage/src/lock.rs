//! Taking a lock whose holder may have panicked: that is a bug of ours, and the data behind
//! the lock may be half changed, so the panic spreads instead of being read past.

use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

const POISONED: &str = "a thread panicked while it changed the store";

/// Locks for reading.
#[inline]
pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().expect(POISONED)
}

/// Locks for writing.
#[inline]
pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().expect(POISONED)
}

/// Locks.
#[inline]
pub(crate) fn lock<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().expect(POISONED)
}

/// What is inside a lock that nobody else can hold.
#[inline]
pub(crate) fn inside<T>(lock: &mut RwLock<T>) -> &mut T {
    lock.get_mut().expect(POISONED)
}
