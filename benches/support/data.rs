//! The rows: 24-byte keys in groups of 100 that share their first 18 bytes, and values that no
//! compressor makes smaller, or, where files are compressed, what an agent might write. Row `id`
//! is the same bytes in every bench and for every peer.

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 24;
/// Bytes that the keys of one group share.
pub(crate) const PREFIX_BYTES: usize = 18;
/// Bytes of an ordinary value.
pub(crate) const VALUE_BYTES: usize = 100;
/// Keys in a group.
pub(crate) const GROUP_KEYS: u64 = 100;
/// Bytes of a row.
pub(crate) const ROW_BYTES: usize = KEY_BYTES + VALUE_BYTES;
/// Ids that commit benches draw from, so that most commits insert and memory stays bounded.
pub(crate) const COMMIT_IDS: u64 = 4_000_000;

pub(crate) type KeyBytes = [u8; KEY_BYTES];
pub(crate) type ValueBytes = [u8; VALUE_BYTES];

/// The key of row `id`.
pub(crate) fn key(id: u64) -> KeyBytes {
    let mut key = *b"user-............/......";
    digits(id / GROUP_KEYS, &mut key[5..17]);
    digits(id % GROUP_KEYS, &mut key[18..]);
    key
}

/// What the keys of `group` begin with.
pub(crate) fn prefix(group: u64) -> [u8; PREFIX_BYTES] {
    let mut prefix = *b"user-............/";
    digits(group, &mut prefix[5..17]);
    prefix
}

fn digits(mut n: u64, out: &mut [u8]) {
    for byte in out.iter_mut().rev() {
        *byte = b'0' + (n % 10) as u8;
        n /= 10;
    }
}

/// The ordinary value of row `id`.
pub(crate) fn value(id: u64) -> ValueBytes {
    let mut value = [0; VALUE_BYTES];
    fill(id, &mut value);
    value
}

/// Fills `out` with the incompressible bytes of row `id` (splitmix64).
pub(crate) fn fill(id: u64, out: &mut [u8]) {
    let mut state = id.wrapping_add(1).wrapping_mul(0xd134_2543_de82_ef95);
    for chunk in out.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
    }
}

/// A value of the ordinary size that looks like a step of an agent: a compressor makes it
/// smaller, but has a third of it to keep.
pub(crate) fn step(id: u64) -> ValueBytes {
    const TOOLS: [&str; 8] = ["read", "search", "edit", "run", "ask", "fetch", "diff", "commit"];
    const FILES: [&str; 8] =
        ["main.rs", "lib.rs", "store.rs", "README.md", "parser.py", "app.ts", "Cargo.toml", "log"];
    let mut random = [0; VALUE_BYTES / 2];
    fill(id, &mut random);
    let pick = |at: usize| usize::from(random[at] % 8);
    let mut text = format!(
        r#"{{"step":{},"tool":"{}","ms":{},"file":"{}","out":""#,
        id % GROUP_KEYS,
        TOOLS[pick(0)],
        u32::from(random[1]) * u32::from(random[2]) % 2000,
        FILES[pick(3)],
    );
    let room = VALUE_BYTES - 2 - text.len();
    let digits = random[4..].iter().flat_map(|byte| [byte >> 4, byte & 15]).take(room);
    text.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    text.push_str("\"}");
    text.into_bytes().try_into().expect("it was made to fit")
}

/// The ids below `n` in a random order, the same for the same seed.
pub(crate) fn shuffled(n: u64, seed: u64) -> Vec<u32> {
    let n = u32::try_from(n).expect("benches use fewer rows than that");
    let mut ids: Vec<u32> = (0..n).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut ids);
    ids
}

/// The keys of the ids below `n` in a random order: a reader walks them in sequence, so
/// making the key costs the measured loop nothing.
pub(crate) fn shuffled_keys(n: u64, seed: u64) -> Vec<KeyBytes> {
    shuffled(n, seed).into_iter().map(|id| key(id.into())).collect()
}

/// What a reader does to every value it gets: looks at its first and last byte. A loop that
/// does not touch the value flatters stores that hand out references.
#[inline]
pub(crate) fn touch(value: &[u8]) -> u64 {
    u64::from(value[0]) + u64::from(value[value.len() - 1])
}

/// What [`touch`] adds up to over the ordinary values of the ids below `n`.
pub(crate) fn touched_sum(n: u64) -> u64 {
    (0..n).map(|id| touch(&value(id))).sum()
}

/// The same over the values that look like steps.
pub(crate) fn touched_steps(n: u64) -> u64 {
    (0..n).map(|id| touch(&step(id))).sum()
}
