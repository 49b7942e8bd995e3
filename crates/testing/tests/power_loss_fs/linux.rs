//! The file system that loses power, through its mount: what a cut keeps, and that it behaves
//! like any other until then.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use steadfast_testing::fuse::power_cut::{PowerCutConfig, cut_repeatedly};
use steadfast_testing::fuse::{Power, PowerLossFs, why_missing};
use steadfast_testing::seed::seed_or;
use steadfast_testing::sim::{Choice, Moment, Plan, Rules, SimDisk};
use steadfast_testing::target::toy::Defect;
use steadfast_testing::target::{Program, Tally};

/// Whether FUSE is there; says loudly if it is not.
fn can_mount() -> bool {
    let missing = why_missing();
    if let Some(why) = &missing {
        // Past the capture of the test harness: nobody should take this for a pass.
        let _ = writeln!(std::io::stderr().lock(), "SKIPPED power_loss_fs: {why}");
    }
    missing.is_none()
}

/// `seen` is done to a mount; what is left if nothing that was not durable is kept, and if all is.
fn cut(rules: Rules, seen: impl FnOnce(&Path)) -> (SimDisk, SimDisk) {
    let dir = tempfile::tempdir().unwrap();
    let fs = PowerLossFs::mount(SimDisk::new(), dir.path(), rules).unwrap();
    seen(fs.path());
    let moment = fs.cut();
    (nothing_kept(&moment), moment.cut(&Plan(Vec::new())))
}

fn nothing_kept(moment: &Moment) -> SimDisk {
    moment.cut(&Plan(vec![Choice::Drop; moment.pending_len()]))
}

fn sync(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn keeps_what_was_synced_and_its_name_once_the_directory_is() {
    if !can_mount() {
        return;
    }
    let (none, all) = cut(Rules::Posix, |root| {
        let mut file = File::create(root.join("a")).unwrap();
        file.write_all(b"synced").unwrap();
        file.sync_data().unwrap();
        sync(root);
        file.write_all(b", not synced").unwrap();
        let other = File::create(root.join("b")).unwrap();
        other.sync_all().unwrap();
    });
    assert_eq!(none.bytes("a").unwrap(), b"synced");
    assert_eq!(none.bytes("b"), None, "nobody synced its directory");
    assert_eq!(all.bytes("a").unwrap(), b"synced, not synced");
    assert_eq!(all.bytes("b").unwrap(), b"");
    for rules in [Rules::Sectors, Rules::Ordered] {
        let (none, _) = cut(rules, |root| {
            std::fs::create_dir(root.join("d")).unwrap();
            std::fs::write(root.join("d/b"), b"lost").unwrap();
            File::create(root.join("c")).unwrap().sync_all().unwrap();
        });
        assert_eq!(none.paths(), ["c", "d/b"], "one journal for all names");
        assert_eq!(none.bytes("d/b").unwrap(), b"", "but not for bytes");
    }
}

#[test]
fn keeps_renames_removals_and_lengths_once_they_are_synced() {
    if !can_mount() {
        return;
    }
    let made = |root: &Path, and_sync: bool| {
        std::fs::create_dir(root.join("d")).unwrap();
        for name in ["old", "gone", "short"] {
            std::fs::write(root.join("d").join(name), [7; 5000]).unwrap();
            sync(&root.join("d").join(name));
        }
        std::fs::write(root.join("d/new"), b"new").unwrap();
        sync(&root.join("d/new"));
        sync(&root.join("d"));
        sync(root);
        std::fs::rename(root.join("d/new"), root.join("d/old")).unwrap();
        std::fs::remove_file(root.join("d/gone")).unwrap();
        let short = OpenOptions::new().write(true).open(root.join("d/short")).unwrap();
        short.set_len(10).unwrap();
        if and_sync {
            short.sync_all().unwrap();
            sync(&root.join("d"));
        }
    };
    let (none, all) = cut(Rules::Posix, |root| made(root, false));
    assert_eq!(none.paths(), ["d/gone", "d/new", "d/old", "d/short"]);
    assert_eq!(none.bytes("d/old").unwrap(), [7; 5000]);
    assert_eq!(none.bytes("d/short").unwrap().len(), 5000);
    let (synced, _) = cut(Rules::Posix, |root| made(root, true));
    for disk in [all, synced] {
        assert_eq!(disk.paths(), ["d/old", "d/short"]);
        assert_eq!(disk.bytes("d/old").unwrap(), b"new");
        assert_eq!(disk.bytes("d/short").unwrap(), [7; 10]);
    }
}

#[test]
fn a_write_with_dsync_is_durable_alone() {
    if !can_mount() {
        return;
    }
    let dsync = rustix::fs::OFlags::DSYNC.bits().cast_signed();
    let (none, _) = cut(Rules::Posix, |root| {
        let plain = File::create(root.join("a")).unwrap();
        plain.set_len(12288).unwrap();
        plain.sync_all().unwrap();
        sync(root);
        plain.write_all_at(b"lazy", 8192).unwrap();
        let options = OpenOptions::new().write(true).custom_flags(dsync).open(root.join("a"));
        options.unwrap().write_all_at(&[9; 4096], 4096).unwrap();
    });
    let bytes = none.bytes("a").unwrap();
    assert_eq!(bytes[4096..8192], [9; 4096]);
    assert_eq!(bytes[8192..8196], [0; 4], "another write does not come along");
}

#[test]
fn the_observer_sees_each_change_and_may_cut_at_it() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let fs = PowerLossFs::mount(SimDisk::new(), dir.path(), Rules::Posix).unwrap();
    fs.observe(Box::new(|number, _| if number == 4 { Power::Cut } else { Power::On }));
    let path = fs.path().join("a");
    let writer = std::thread::spawn(move || {
        let mut file = File::create(path).unwrap();
        file.write_all(b"one").unwrap();
        file.write_all(b"two").unwrap();
        file.write_all(b"three")
    });
    while !fs.is_cut() {
        std::thread::yield_now();
    }
    let moment = fs.cut();
    assert!(!writer.is_finished(), "whoever asks waits");
    fs.let_go();
    assert!(writer.join().unwrap().is_err(), "and fails when there is nobody left to be fooled");
    assert_eq!(moment.cut(&Plan(Vec::new())).bytes("a").unwrap(), b"onetwo");
    assert_eq!(fs.changes(), 4);
}

#[test]
fn a_mount_is_taken_away_after_a_panic_and_with_open_files() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let open = std::thread::spawn(move || {
        let fs = PowerLossFs::mount(SimDisk::new(), &path, Rules::Posix).unwrap();
        let file = File::create(fs.path().join("a")).unwrap();
        std::panic::panic_any((file, fs));
    });
    let caught = open.join().unwrap_err();
    let mounts = || std::fs::read_to_string("/proc/mounts").unwrap();
    let name = dir.path().to_str().unwrap();
    assert!(mounts().contains(name));
    drop(caught);
    assert!(!mounts().contains(name));
    assert!(!dir.path().join("a").exists());
}

/// Where the process below mounts.
const DIES_AT: &str = "STEADFAST_TEST_MOUNT";

/// Not a test of its own: a process that dies while it serves a mount.
#[test]
#[ignore = "another test runs it in a process of its own"]
fn mounts_and_dies() {
    let Some(path) = std::env::var_os(DIES_AT) else { return };
    let fs = PowerLossFs::mount(SimDisk::new(), Path::new(&path), Rules::Posix).unwrap();
    std::fs::write(fs.path().join("a"), b"a").unwrap();
    std::process::abort();
}

#[test]
fn the_mount_of_a_killed_process_is_taken_away_by_the_next() {
    if !can_mount() {
        return;
    }
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mounted = |dir: &tempfile::TempDir| {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        mounts.contains(dir.path().to_str().unwrap())
    };
    for dir in &dirs {
        let ended = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "linux::mounts_and_dies"])
            .env(DIES_AT, dir.path())
            .output()
            .unwrap();
        assert!(!ended.status.success() && mounted(dir), "{ended:?}");
    }
    assert!(!mounted(&dirs[0]), "the second process cleared up behind the first");
    rustix::mount::unmount(dirs[1].path(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// One random step on both; what each of them answered.
fn step(rng: &mut fastrand::Rng, roots: [&Path; 2]) {
    let names = ["a", "b", "c", "d/a", "d/b", "d/e/a"];
    let name = names[rng.usize(..names.len())];
    let same = &names[if name.starts_with("d/e") {
        5..6
    } else if name.len() > 1 {
        3..5
    } else {
        0..3
    }];
    let to = same[rng.usize(..same.len())];
    let (at, len) = (rng.u64(..20_000), rng.usize(..9000));
    let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(1..)).take(len).collect();
    let kind = rng.u32(..13);
    let answers = roots.map(|root| -> Result<Vec<u8>, std::io::ErrorKind> {
        let path = root.join(name);
        let open = || OpenOptions::new().read(true).write(true).open(&path);
        let done = || -> std::io::Result<Vec<u8>> {
            match kind {
                0..=2 => open()?.write_all_at(&bytes, at)?,
                3 => std::fs::write(&path, &bytes)?,
                4 => OpenOptions::new().append(true).open(&path)?.write_all(&bytes)?,
                5 => open()?.set_len(at)?,
                6 => std::fs::remove_file(&path)?,
                7 => std::fs::rename(&path, root.join(to))?,
                8 => std::fs::create_dir_all(root.join("d/e"))?,
                9 => std::fs::remove_dir(root.join(if at % 2 == 0 { "d/e" } else { "d" }))?,
                10 => {
                    let file = open()?;
                    let holes = rustix::fs::FallocateFlags::PUNCH_HOLE
                        | rustix::fs::FallocateFlags::KEEP_SIZE;
                    rustix::fs::fallocate(file, holes, at, len as u64 + 1)?;
                }
                11 => {
                    let mut file = open()?;
                    std::fs::remove_file(&path)?;
                    file.write_all(&bytes)?;
                    file.seek(SeekFrom::Start(0))?;
                    let mut found = Vec::new();
                    file.read_to_end(&mut found)?;
                    return Ok(found);
                }
                _ => return std::fs::read(&path),
            }
            Ok(Vec::new())
        };
        done().map_err(|error| error.kind())
    });
    assert_eq!(answers[0], answers[1], "step {kind} on {name}");
}

/// Every path below, with its bytes.
fn listing(root: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let (mut found, mut todo) = (Vec::new(), vec![root.to_owned()]);
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if path.is_dir() {
                todo.push(path);
                found.push((name, None));
            } else {
                let len = entry.metadata().unwrap().len();
                let bytes = std::fs::read(&path).unwrap();
                assert_eq!(bytes.len() as u64, len);
                found.push((name, Some(bytes)));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn it_looks_like_any_other_file_system_until_the_cut() {
    if !can_mount() {
        return;
    }
    let seed = seed_or(1);
    for rules in Rules::ALL {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (dir, real) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let fs = PowerLossFs::mount(SimDisk::new(), dir.path(), rules).unwrap();
        for round in 0..40 {
            for _ in 0..25 {
                step(&mut rng, [fs.path(), real.path()]);
            }
            assert!(listing(fs.path()) == listing(real.path()), "{rules:?} round {round}");
        }
        let everything = listing(real.path());
        // A kill loses nothing, and neither does a remount.
        let killed = fs.cut().kill();
        drop(fs);
        let fs = PowerLossFs::mount(killed, dir.path(), rules).unwrap();
        assert!(listing(fs.path()) == everything, "{rules:?} mounted again");
    }
}

fn cut_target(arguments: &[&str], rules: Rules, cuts: u64) -> Tally {
    let program = Program::new(env!("CARGO_BIN_EXE_crash_target"), arguments);
    let config = PowerCutConfig { rules, cuts, seed: seed_or(1), ..PowerCutConfig::default() };
    let tally = cut_repeatedly(&program, &config).unwrap();
    println!("{arguments:?} {rules:?}: {tally}");
    assert!(tally.crashes >= cuts && tally.images >= cuts, "{tally}");
    tally
}

#[test]
fn steadfast_keeps_what_it_promised_in_every_mode() {
    if !can_mount() {
        return;
    }
    for mode in ["strict", "batched", "buffered"] {
        for rules in Rules::ALL {
            let tally = cut_target(&["steadfast", mode], rules, 40);
            assert_eq!(tally.wrong(), 0, "{tally}");
            assert!(tally.acknowledged > 0, "{tally}");
            let lost = tally.unpromised_lost > 0;
            assert!(!lost || mode != "strict", "strict promises everything: {tally}");
        }
    }
}

#[test]
fn what_went_wrong_is_left_to_be_looked_at() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = Program::new(env!("CARGO_BIN_EXE_crash_target"), &["toy", "no-sync"]);
    let config = PowerCutConfig {
        cuts: 30,
        seed: seed_or(1),
        evidence: Some(dir.path().to_owned()),
        ..PowerCutConfig::default()
    };
    let tally = cut_repeatedly(&program, &config).unwrap();
    assert!(tally.count("lost") > 0, "{tally}");
    let [finding] = &tally.findings[..] else { panic!("the first of each kind: {tally}") };
    assert!(finding.place.starts_with(&format!("seed {}, ", config.seed)), "{finding}");
    let names: Vec<_> =
        listing(&dir.path().join("lost")).into_iter().map(|found| found.0).collect();
    for name in ["before/store", "after/store/log"] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
}

#[test]
fn a_power_cut_finds_every_defect() {
    if !can_mount() {
        return;
    }
    let found: [(Defect, Rules, &[&str]); 7] = [
        (Defect::None, Rules::Posix, &[]),
        (Defect::NoSync, Rules::Ordered, &["lost"]),
        (Defect::EarlyAcknowledgement, Rules::Ordered, &["lost"]),
        (Defect::TwoFiles, Rules::Ordered, &["torn"]),
        (Defect::NoDirectorySync, Rules::Posix, &["lost"]),
        // Any sync makes a name durable there.
        (Defect::NoDirectorySync, Rules::Ordered, &[]),
        (Defect::NoChecksum, Rules::Posix, &["garbage"]),
    ];
    for (defect, rules, names) in found {
        let tally = cut_target(&["toy", defect.name()], rules, 60);
        assert_eq!(tally.wrong() > 0, !names.is_empty(), "{defect:?}: {tally}");
        for name in names {
            assert!(tally.count(name) > 0, "{defect:?} shows as {name}: {tally}");
        }
    }
}
