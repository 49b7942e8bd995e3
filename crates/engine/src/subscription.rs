//! Being told of commits as they become visible: bounded, and never in a writer's way.
//!
//! A subscription has a queue of its own. Where it is full, commits are counted instead of kept:
//! whoever must see every one uses a [`crate::Cursor`] or a [`crate::Tail`].

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use steadfast_core::{Record, Timestamp, Version};
use steadfast_durability::wal::segment::Epoch;

use crate::change::{Commit, Region};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::namespaces::Namespaces;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

#[derive(Debug, Default)]
struct Queue {
    commits: VecDeque<Commit>,
    lost: u64,
    closed: bool,
}

#[derive(Debug)]
struct Subscriber {
    region: Region,
    capacity: usize,
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Subscriber {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those who are to be told, kept by the commit pipeline.
pub(crate) struct Subscribers {
    list: Mutex<Vec<Weak<Subscriber>>>,
    /// How many there are, so that a commit that nobody waits for takes no lock.
    count: AtomicUsize,
    namespaces: Arc<Namespaces>,
}

impl Subscribers {
    pub(crate) fn new(namespaces: Arc<Namespaces>) -> Self {
        Self { list: Mutex::default(), count: AtomicUsize::new(0), namespaces }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Tells everybody of a commit that is becoming visible. Called in the order of versions,
    /// under the pipeline's lock: it waits for nothing but a push or a pop of a queue.
    pub(crate) fn tell(
        &self,
        version: Version,
        timestamp: Timestamp,
        epoch: Option<Epoch>,
        records: &[Record],
    ) {
        let mut shared: Option<Arc<[Record]>> = None;
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.retain(|subscriber| {
            let Some(subscriber) = subscriber.upgrade() else { return false };
            if !subscriber.region.touches(records) {
                return true;
            }
            let mut queue = subscriber.lock();
            if queue.commits.len() >= subscriber.capacity {
                queue.lost += 1;
                return true;
            }
            let records = shared.get_or_insert_with(|| records.into()).clone();
            let namespaces = self.namespaces.clone();
            queue.commits.push_back(Commit { version, timestamp, epoch, records, namespaces });
            drop(queue);
            subscriber.wake.notify_one();
            true
        });
        self.count.store(list.len(), Ordering::Release);
    }

    fn add(&self, subscriber: &Arc<Subscriber>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(Arc::downgrade(subscriber));
        self.count.store(list.len(), Ordering::Release);
    }

    /// Ends all subscriptions: what is queued can still be taken.
    pub(crate) fn close(&self) {
        let list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        for subscriber in list.iter().filter_map(Weak::upgrade) {
            subscriber.lock().closed = true;
            subscriber.wake.notify_all();
        }
    }
}

/// A bounded queue of the commits that became visible since it was made.
///
/// A commit is in it before the call that made it returns, and commits are in the order of
/// their versions. Where the queue is full they are not kept, only counted; nobody who commits
/// ever waits for whoever reads.
#[derive(Debug)]
pub struct Subscription {
    subscriber: Arc<Subscriber>,
    /// Lost commits that were told of already.
    told: u64,
}

/// What a subscription gives.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A commit that touches the region.
    Commit(Commit),
    /// So many commits to the runs and streams of the region came while the queue was full. What
    /// is told next came after them.
    Lost(u64),
}

impl Database {
    /// Subscribes to what is committed in `region` from now on, at most `capacity` commits at a
    /// time.
    ///
    /// # Errors
    ///
    /// Kind `Invalid` if `capacity` is zero; `Closed` if the database is closed, or open for
    /// reading only.
    pub fn subscribe(&self, region: Region, capacity: usize) -> Result<Subscription> {
        self.check_open()?;
        if capacity == 0 {
            return Err(Error::Invalid("a subscription needs room for one commit".into()));
        }
        let subscriber = Arc::new(Subscriber {
            region,
            capacity,
            queue: Mutex::default(),
            wake: Condvar::new(),
        });
        self.pipeline()?.subscribers().add(&subscriber);
        Ok(Subscription { subscriber, told: 0 })
    }
}

impl Subscription {
    fn take(&mut self, queue: &mut Queue) -> Result<Option<Notice>> {
        // What is queued came before what was lost: the queue was full then.
        while let Some(commit) = queue.commits.pop_front() {
            // Whoever commits looks at keys only; what an event says of itself is read here.
            if self.subscriber.region.meets(&commit)? {
                return Ok(Some(Notice::Commit(commit)));
            }
        }
        if queue.lost > self.told {
            let lost = queue.lost - self.told;
            self.told = queue.lost;
            return Ok(Some(Notice::Lost(lost)));
        }
        if queue.closed { Err(crate::commit::CLOSED) } else { Ok(None) }
    }

    /// The next notice, if there is one now.
    ///
    /// # Errors
    ///
    /// Kind `Closed` if the database was closed and nothing is left.
    pub fn try_recv(&mut self) -> Result<Option<Notice>> {
        let subscriber = self.subscriber.clone();
        self.take(&mut subscriber.lock())
    }

    /// The next notice, waiting for it this long at most.
    ///
    /// # Errors
    ///
    /// As [`Subscription::try_recv`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Notice>> {
        let subscriber = self.subscriber.clone();
        let until = std::time::Instant::now() + timeout;
        let mut queue = subscriber.lock();
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            match self.take(&mut queue)? {
                None if !left.is_zero() => {
                    let waited = subscriber.wake.wait_timeout(queue, left);
                    queue = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                notice => return Ok(notice),
            }
        }
    }

    /// How many commits it has lost so far.
    pub fn lost(&self) -> u64 {
        self.subscriber.lock().lost
    }
}
