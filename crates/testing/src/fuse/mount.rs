//! Mounting, cutting the power, and taking the mount away whatever happens.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption, SessionACL};
use rustix::fs::{Mode, OFlags};

use crate::fuse::filesystem::{Handles, Served};
use crate::fuse::nodes::Nodes;
use crate::sim::{Moment, Rules, SimDisk};

/// What the table of mounts names as the source.
const SOURCE: &str = "power-loss";

/// How long the kernel may take to let go of a mount.
const PATIENCE: Duration = Duration::from_secs(5);

/// Aligned as `O_DIRECT` asks for.
#[repr(align(4096))]
struct Aligned([u8; 4096]);
static BLOCK: Aligned = Aligned([1; 4096]);

/// Whether there is power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// There is.
    On,
    /// It is gone: whoever asks for anything waits.
    Cut,
}

/// Sees every change before it is made: its number, counted from 1, and the disk as it is then.
/// A durable write is seen a second time, while it is under way. It may cut the power there.
pub type Observer = Box<dyn FnMut(u64, &dyn Fn() -> Moment) -> Power + Send>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    On,
    /// Requests wait, so that nobody learns of the cut while the process still runs.
    Cut,
    /// Requests fail.
    Gone,
}

/// What the mount and those who serve it share.
pub(crate) struct Inner {
    pub(crate) disk: SimDisk,
    pub(crate) nodes: Nodes,
    pub(crate) handles: Handles,
    /// Whether the kernel lets a sync follow a write with `O_DSYNC`: with and without `O_DIRECT`.
    pub(crate) sync_follows: [bool; 2],
    pub(crate) rules: Rules,
    state: State,
    changes: u64,
    observer: Option<Observer>,
    moment: Option<Moment>,
}

#[derive(Clone)]
pub(crate) struct Shared(Arc<(Mutex<Inner>, Condvar)>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a request that changes nothing. The lock is held until it is answered, so that a cut
    /// comes before it or after the answer, never between.
    pub(crate) fn look(&self) -> io::Result<MutexGuard<'_, Inner>> {
        self.powered(self.lock())
    }

    /// For a request that changes something.
    pub(crate) fn change(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.powered(self.lock())?;
        inner.changes += 1;
        let disk = inner.disk.clone();
        self.observe(inner, &|| disk.moment())
    }

    /// Lets the observer see a moment, of which the disk may know more already.
    pub(crate) fn observe<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        moment: &dyn Fn() -> Moment,
    ) -> io::Result<MutexGuard<'a, Inner>> {
        let number = inner.changes;
        let flow = inner.observer.as_mut().map(|observer| observer(number, moment));
        if flow == Some(Power::Cut) {
            inner.state = State::Cut;
            inner.moment = Some(moment());
            self.0.1.notify_all();
        }
        self.powered(inner)
    }

    fn powered<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
    ) -> io::Result<MutexGuard<'a, Inner>> {
        while inner.state == State::Cut {
            inner = self.0.1.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        match inner.state {
            State::Gone => Err(io::Error::from_raw_os_error(crate::sim::EIO)),
            _ => Ok(inner),
        }
    }
}

/// A mounted disk. The mount is taken away when this is dropped, after a panic too; what a process
/// leaves that is killed is taken away by the next one that mounts.
pub struct PowerLossFs {
    shared: Shared,
    path: PathBuf,
    session: Option<BackgroundSession>,
}

impl std::fmt::Debug for PowerLossFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PowerLossFs({})", self.path.display())
    }
}

impl PowerLossFs {
    /// Shows `disk` at `path`, an empty directory. `rules` say what a sync makes durable.
    ///
    /// # Errors
    ///
    /// There is no `/dev/fuse`, or no right to mount: see [`why_missing`].
    pub fn mount(disk: SimDisk, path: &Path, rules: Rules) -> io::Result<Self> {
        static SYNC_FOLLOWS: OnceLock<[bool; 2]> = OnceLock::new();
        let sync_follows = match SYNC_FOLLOWS.get() {
            Some(known) => *known,
            None => {
                remove_dead_mounts();
                let tried = try_durable_writes()?;
                *SYNC_FOLLOWS.get_or_init(|| tried)
            }
        };
        Self::mount_knowing(disk, path, rules, sync_follows)
    }

    fn mount_knowing(
        disk: SimDisk,
        path: &Path,
        rules: Rules,
        sync_follows: [bool; 2],
    ) -> io::Result<Self> {
        let inner = Inner {
            disk,
            nodes: Nodes::new(),
            handles: Handles::default(),
            sync_follows,
            rules,
            state: State::On,
            changes: 0,
            observer: None,
            moment: None,
        };
        let shared = Shared(Arc::new((Mutex::new(inner), Condvar::new())));
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::FSName(SOURCE.into()), MountOption::DefaultPermissions];
        config.acl = SessionACL::Owner;
        let session = fuser::spawn_mount(Served(shared.clone()), path, &config)?;
        Ok(Self { shared, path: path.to_owned(), session: Some(session) })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The disk beneath: faults can be injected into it, its steps counted.
    pub fn disk(&self) -> SimDisk {
        self.shared.lock().disk.clone()
    }

    /// How many requests asked for a change.
    pub fn changes(&self) -> u64 {
        self.shared.lock().changes
    }

    /// Lets `observer` see every change from now on. It must not call this file system.
    pub fn observe(&self, observer: Observer) {
        self.shared.lock().observer = Some(observer);
    }

    /// Whether the power is cut.
    pub fn is_cut(&self) -> bool {
        self.shared.lock().state != State::On
    }

    /// Cuts the power, if the observer has not yet, and says what the disk was then. Requests
    /// wait from now on: end the process, then call [`PowerLossFs::let_go`].
    pub fn cut(&self) -> Moment {
        let mut inner = self.shared.lock();
        if inner.state == State::On {
            inner.state = State::Cut;
            inner.moment = Some(inner.disk.moment());
        }
        inner.moment.clone().expect("whoever cuts the power notes the moment")
    }

    /// All requests fail from now on, those that wait too.
    pub fn let_go(&self) {
        let mut inner = self.shared.lock();
        if inner.moment.is_none() {
            inner.moment = Some(inner.disk.moment());
        }
        inner.state = State::Gone;
        self.shared.0.1.notify_all();
    }
}

impl Drop for PowerLossFs {
    fn drop(&mut self) {
        self.let_go();
        // Detached, it is gone for all others at once, even if somebody has a file open in it.
        let detached = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
        let Some(session) = self.session.take() else { return };
        if detached.is_err() {
            // Not ours to unmount: `fusermount3` does it.
            let _ = session.umount_and_join();
            return;
        }
        let until = Instant::now() + PATIENCE;
        while !session.guard.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
        if session.guard.is_finished() {
            let _ = session.join();
        }
    }
}

/// Takes away what processes left that were killed while they served a mount.
fn remove_dead_mounts() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for line in mounts.lines().filter(|line| line.split(' ').next() == Some(SOURCE)) {
        let Some(path) = line.split(' ').nth(1) else { continue };
        // Others may be alive, and answer.
        if rustix::fs::statfs(path).err() == Some(rustix::io::Errno::NOTCONN) {
            let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Whether this kernel lets a sync follow a write with `O_DSYNC`, by itself; without `O_DIRECT`
/// and with it.
fn try_durable_writes() -> io::Result<[bool; 2]> {
    let dir = tempfile::tempdir()?;
    let fs = PowerLossFs::mount_knowing(SimDisk::new(), dir.path(), Rules::Posix, [false; 2])?;
    let mut found = [false; 2];
    for (found, flags) in found.iter_mut().zip([OFlags::DSYNC, OFlags::DSYNC | OFlags::DIRECT]) {
        let flags = flags | OFlags::CREATE | OFlags::WRONLY;
        let file = rustix::fs::open(fs.path().join("a"), flags, Mode::RWXU)?;
        let before = fs.changes();
        rustix::io::pwrite(&file, &BLOCK.0, 0)?;
        *found = fs.changes() > before + 1;
    }
    Ok(found)
}

/// Why no file system can be mounted here; `None` if it can, which is tried.
pub fn why_missing() -> Option<String> {
    if !Path::new("/dev/fuse").exists() {
        return Some("there is no /dev/fuse".into());
    }
    let tried = tempfile::tempdir().and_then(|dir| {
        let fs = PowerLossFs::mount(SimDisk::new(), dir.path(), Rules::Posix)?;
        #[allow(clippy::disallowed_methods)]
        std::fs::File::create(fs.path().join("a")).map(drop)
    });
    tried.err().map(|error| format!("FUSE cannot be mounted: {error}"))
}
