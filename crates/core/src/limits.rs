//! Every maximum, once, with its reason. Each is checked at the door, as an error, before
//! anything is written.

/// Longest key a caller may use, in bytes. Keys live in memory and in every log record of
/// their rows; what does not fit here belongs in the value.
pub const USER_KEY_BYTES_MAX: usize = 4096;

/// Longest stored key, in bytes: the caller's key, the namespace and type in front of it, and
/// the room that escaping a stream's name and its sequence number can take.
pub const STORED_KEY_BYTES_MAX: usize = 2 * USER_KEY_BYTES_MAX + 32;

/// Largest encoded value, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Deepest nesting of lists and maps in a value. Decoding recurses once a level.
pub const VALUE_DEPTH_MAX: usize = 64;

/// Largest encoded transaction, in bytes. Recovery stages a streamed transaction in memory
/// until it finds its commit frame, so this bounds what staging can take.
pub const TXN_BYTES_MAX: usize = 64 << 20;

/// Most writes in one transaction.
pub const TXN_WRITES_MAX: usize = 1_000_000;

/// Longest name of a run, a tenant, an application or an agent, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;

/// Largest frame of the log, in bytes. A transaction above it is streamed in parts.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Largest group of the log, in bytes: what one write hands to the kernel, and the most that
/// a reader has to hold at once. A group takes frames until it has more than
/// [`FRAME_BYTES_MAX`], so it is below twice that, with its header, its trailer and padding.
pub const GROUP_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX + (64 << 10);

/// Streamed transactions that may be open at once in a log. The engine has one at a time; a
/// log that was written by hand may have more.
pub const STREAMS_OPEN_MAX: usize = 4096;

/// Bytes of streamed transactions that replay stages at the most, of all that are open.
pub const STAGED_BYTES_MAX: usize = TXN_BYTES_MAX + (16 << 20);

/// Smallest segment of the log, in bytes: its header block and room for a few groups.
pub const SEGMENT_BYTES_MIN: u64 = 16 << 10;

/// Largest segment of the log, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Largest MANIFEST, in bytes. It grows by one epoch for each opening that wrote something.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 20;

/// Highest version there can be. Versions are counted one by one from 1, with a jump of some
/// thousands at each opening after a crash, so nobody comes near; a file that says otherwise is
/// not one of ours.
pub const VERSION_MAX: u64 = 1 << 62;

/// Most namespaces, and so runs, that a database can ever have had.
pub const NAMESPACES_MAX: u32 = 1 << 24;

/// Highest number of a segment of the log.
pub const SEGMENT_NUMBER_MAX: u64 = 1 << 48;

/// Highest number of a snapshot.
pub const SNAPSHOT_NUMBER_MAX: u64 = 1 << 48;

/// Bytes of rows in a block of a snapshot, uncompressed: what one read of a key takes from the
/// device and checks. Larger blocks compress better and make the index smaller; smaller ones
/// read less for one key. A row that is larger has a block of its own.
pub const SNAPSHOT_BLOCK_BYTES: usize = 8 << 10;

/// Bytes of rows in a section of a snapshot, uncompressed: what a load takes at once, so that a
/// device streams and two threads find enough sections to share. Versions of one key stay
/// together, so a key with a long history makes its section longer.
pub const SNAPSHOT_SECTION_BYTES: usize = 1 << 20;

/// Most bytes of rows that a block of more than one row may hold: what a reader takes from a
/// file at the most, whatever the file says. Above what is written, so that later releases
/// may write larger ones.
pub const SNAPSHOT_BLOCK_BYTES_MAX: usize = 256 << 10;

/// Most bytes that a block may take once decompressed: the largest row, and what is said of it.
pub const SNAPSHOT_PLAIN_BYTES_MAX: usize = VALUE_BYTES_MAX + 2 * STORED_KEY_BYTES_MAX + 4096;

/// Write-set entries of recent commits kept to validate running transactions. A transaction
/// whose view is older than the oldest kept commit gets a conflict and starts again.
pub const RECENT_WRITES_MAX: usize = 1 << 16;

/// Largest weight of a signal. Sums of as many as there can be stay finite.
pub const SIGNAL_WEIGHT_MAX: f64 = 1e15;

/// Latest time of a signal, in µs since 1970: the end of the year 9999.
pub const SIGNAL_TIME_US_MAX: u64 = 253_402_300_800_000_000;

/// Longest half-life or lifetime of a signal, in µs: 1000 years.
pub const SIGNAL_DECAY_US_MAX: u64 = 1000 * 365 * 24 * 3600 * 1_000_000;

/// Most minutes, and most hours, for which a signal keeps counts: each takes four bytes of
/// every entity, and is copied with every change.
pub const SIGNAL_BUCKETS_MAX: u32 = 1000;

/// Observations of one signal and entity that are kept apart because they were ahead of the
/// clock when they were committed. Of more, the first is counted as of the time of the commit.
pub const SIGNAL_AHEAD_MAX: usize = 64;

/// Most attributes of an entity: they are read with each observation of it.
pub const ATTRIBUTES_MAX: usize = 256;

/// Most bytes of the attributes of an entity, encoded.
pub const ATTRIBUTES_BYTES_MAX: usize = 64 << 10;

/// Most cohorts of a database: each observation of an entity that has attributes asks them all.
pub const COHORTS_MAX: usize = 256;

/// Most parts of a predicate: its comparisons, the values it lists, and what joins them.
pub const PREDICATE_PARTS_MAX: usize = 256;

/// Deepest nesting of a predicate. Asking it recurses once a level.
pub const PREDICATE_DEPTH_MAX: usize = 16;

/// Most bytes of a predicate, encoded: the definitions of all cohorts are one value.
pub const PREDICATE_BYTES_MAX: usize = 16 << 10;

/// Most edges of an item of a graph: all of them are written anew with each that changes.
pub const GRAPH_EDGES_MAX: usize = 256;

/// Most items that a graph remembers of an actor: one engagement changes the edges of each.
pub const GRAPH_RECENT_MAX: usize = 64;

/// Longest item of a graph, in bytes. With the two above this bounds what one engagement writes,
/// below a tenth of [`TXN_BYTES_MAX`].
pub const GRAPH_ITEM_BYTES_MAX: usize = 256;

/// Observations of one signal and entity in one transaction.
pub const SIGNAL_OBSERVATIONS_MAX: usize = 100_000;

/// Most runs that a fork may have beneath it, each forked from the next. What is not in the fork
/// itself is looked for in one after the other.
pub const FORK_DEPTH_MAX: usize = 16;
