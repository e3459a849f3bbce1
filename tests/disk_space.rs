//! What takes a small file system, or time: how a member lives with a full disk, and what it takes of one while everything
//! is overwritten again and again. `cargo xtask full-disk` and `cargo xtask soak overwrite` run these.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use blackbox::{Member, patience, run};
use client::{Client, Error};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;
use wire::ApiError;
use wire::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest};

const MIB: u64 = 1 << 20;

fn key(n: usize) -> String {
    format!("k{n:06}")
}

fn put_of(key: &str, value: Vec<u8>) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.into(), ..Default::default() }
}

async fn value_of(client: &Client, key: &str) -> Option<Vec<u8>> {
    let get = RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let found = client.range(get, patience()).await.expect("reads go on");
    found.kvs.first().map(|kv| kv.value.to_vec())
}

async fn revision(client: &Client) -> i64 {
    client.status(patience()).await.expect("a status").header.expect("a header").revision
}

/// How long anything takes is no matter here.
fn announce_slow_ones(member: &mut Member) {
    member.announce("request stats");
    member.announce("took too long");
}

/// Takes the room away that a member would need for its next segments, and gives it back.
struct Ballast(tempfile::NamedTempFile);

impl Ballast {
    fn of(bytes: u64) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let bytes = i64::try_from(bytes).expect("a length");
        fallocate(file.as_file(), FallocateFlags::empty(), 0, bytes).expect("there is room");
        Ballast(file)
    }

    fn drop_it(self) {
        self.0.close().expect("it can be removed");
    }
}

/// What a member allocates at its start, and what it needs to go on: a segment of each log.
const ALLOCATED: u64 = 256 * MIB;
const NEEDED: u64 = 128 * MIB;
/// What is left for all that is smaller.
const SLACK: u64 = 24 * MIB;

#[test]
#[ignore = "needs a small file system: cargo xtask full-disk"]
fn a_full_file_system_is_lived_with_and_there_is_no_restart() {
    let place = std::env::temp_dir();
    let stat = statvfs(&place).expect("a file system");
    let free = stat.blocks_available() * stat.fragment_size();
    let (least, most) = (ALLOCATED + NEEDED + 2 * SLACK, 2 << 30);
    assert!(
        (least..most).contains(&free),
        "{} has {} MiB free, and {} to {} are wanted: a small file system of its own",
        place.display(),
        free / MIB,
        least / MIB,
        most / MIB,
    );
    let ballast = Ballast::of(free - ALLOCATED - SLACK);
    // The quota is not what ends it.
    let mut member = Member::new(&["--quota-backend-bytes=-1", "--snapshot-count=1000000"]);
    member.announce("disk is full");
    announce_slow_ones(&mut member);
    member.restart();
    run(async {
        let client = member.client();
        let value = vec![b'v'; 64 << 10];
        let mut count = 0;
        loop {
            match client.put(put_of(&key(count), value.clone()), patience()).await {
                Ok(_) => count += 1,
                Err(error) => {
                    assert!(error.is(ApiError::NoSpace), "{error}");
                    break;
                }
            }
            assert!(count as u64 * (64 << 10) < free, "what was put is more than there is room for");
        }
        println!("full after {count} puts of 64 KiB");
        assert!(count > 100);
        let refused = |error: Error| assert!(error.is(ApiError::NoSpace), "{error}");
        refused(client.put(put_of("small", b"1".to_vec()), patience()).await.expect_err("it is full"));

        // Nothing else is in the way.
        assert_eq!(value_of(&client, &key(count - 1)).await, Some(value.clone()));
        let delete = DeleteRangeRequest { key: key(0).into(), ..Default::default() };
        assert_eq!(client.delete_range(delete, patience()).await.expect("deletes go on").deleted, 1);
        assert_eq!(value_of(&client, &key(0)).await, None);
        let compaction = CompactionRequest { revision: revision(&client).await, physical: true };
        client.compact(compaction, patience()).await.expect("compactions go on");
        assert_eq!(member.http_get("/health").trim_end(), r#"{"health":"true","reason":""}"#);
        assert!(client.alarms(patience()).await.expect("an answer").alarms.is_empty(), "no alarm is raised");

        let pid = member.pid();
        ballast.drop_it();
        let since = Instant::now();
        let deadline = patience();
        while let Err(error) = client.put(put_of("after", b"1".to_vec()), deadline).await {
            refused(error);
            assert!(
                deadline.remaining().is_some_and(|left| !left.is_zero()),
                "there is room, and puts are refused"
            );
        }
        println!("a put was taken {:?} after there was room", since.elapsed());
        assert_eq!(member.pid(), pid, "the same process");
        for n in 0..200 {
            client.put(put_of(&key(n), value.clone()), patience()).await.expect("there is room");
        }
        let hash = client.hash_kv(0, patience()).await.expect("a hash");
        let all = RangeRequest {
            key: b"k".to_vec().into(),
            range_end: b"l".to_vec().into(),
            count_only: true,
            ..Default::default()
        };
        let counted = client.range(all, patience()).await.expect("a read").count;
        assert_eq!(counted, count.max(200) as i64);
        member.restart();
        let again = member.client().hash_kv(0, patience()).await.expect("a hash");
        assert_eq!(again.hash, hash.hash, "what was acknowledged is there");
    });
}

/// Writers, and how many keys each has.
const WRITERS: usize = 32;
const KEYS_EACH: usize = 200;
const VALUE_BYTES: usize = 8 << 10;
/// Between two looks at the disk, and between two compactions.
const LOOK: Duration = Duration::from_millis(500);
const COMPACT: Duration = Duration::from_secs(2);

/// What the files below a folder take, bytes.
fn taken(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let each = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => taken(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // It went meanwhile.
        Err(_) => 0,
    });
    each.sum()
}

/// How often each key was put, as far as that was acknowledged, and whether it is to end.
#[derive(Default)]
struct Load {
    versions: RefCell<Vec<u64>>,
    puts: Cell<u64>,
    ends: Cell<bool>,
}

/// Overwrites its own keys in turn, each time with a value that says which one it is.
async fn overwrite(client: Client, writer: usize, load: Rc<Load>) {
    for round in 1.. {
        for n in writer * KEYS_EACH..(writer + 1) * KEYS_EACH {
            if load.ends.get() {
                return;
            }
            let mut value = format!("{round} ").into_bytes();
            value.resize(VALUE_BYTES, b'.');
            client.put(put_of(&key(n), value), patience()).await.expect("a put");
            load.versions.borrow_mut()[n] = round;
            load.puts.set(load.puts.get() + 1);
        }
    }
}

/// Compacts all but the newest changes. Asked twice at one revision, a member says one hash.
async fn compact(client: Client, load: Rc<Load>) {
    while !load.ends.get() {
        tokio::time::sleep(COMPACT).await;
        let at = revision(&client).await;
        let first = client.hash_kv(at, patience()).await.expect("a hash");
        let again = client.hash_kv(at, patience()).await.expect("a hash");
        assert_eq!((first.hash, first.hash_revision), (again.hash, at), "HashKV of one revision");
        let compaction = CompactionRequest { revision: at - 1000.min(at - 1), physical: false };
        if compaction.revision > 1 {
            client.compact(compaction, patience()).await.expect("a compaction");
        }
    }
}

#[test]
#[ignore = "takes minutes: cargo xtask soak overwrite"]
fn overwriting_takes_twice_what_lives_and_a_gibibyte_at_most() {
    let minutes: u64 = std::env::var("QUORATE_MINUTES").map_or(1, |text| text.parse().expect("a number"));
    let mut member = Member::new(&["--quota-backend-bytes=8589934592"]);
    announce_slow_ones(&mut member);
    // Where the machine has much else to do.
    member.announce("gave up the hash of a compaction");
    member.restart();
    let load = Rc::new(Load { versions: RefCell::new(vec![0; WRITERS * KEYS_EACH]), ..Load::default() });
    let (mut looks, mut most, mut closest) = (0, (0, 0), (0.0, 0, 0));
    let hash = run(async {
        let client = member.client();
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            tasks.spawn_local(overwrite(member.client(), writer, load.clone()));
        }
        tasks.spawn_local(compact(member.client(), load.clone()));
        let until = Instant::now() + Duration::from_secs(60 * minutes);
        while Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            let live = client.status(patience()).await.expect("a status").db_size.unsigned_abs();
            let disk = taken(&member.data_dir().join("member"));
            looks += 1;
            most = most.max((disk, live));
            let bound = 2 * live + (1 << 30);
            let share = disk as f64 / bound as f64;
            if share > closest.0 {
                closest = (share, disk, live);
            }
            assert!(disk <= bound, "{} MiB on disk, {} MiB live", disk / MIB, live / MIB);
            if let Some(Err(ended)) = tasks.try_join_next() {
                panic!("a task ended: {ended}");
            }
        }
        load.ends.set(true);
        while let Some(ended) = tasks.join_next().await {
            ended.expect("it ends well");
        }
        let hash = client.hash_kv(0, patience()).await.expect("a hash");
        (hash.hash, hash.hash_revision, hash.compact_revision)
    });
    let written = load.puts.get() * VALUE_BYTES as u64;
    println!(
        "{minutes} min: {} puts, {} MiB of values, {looks} looks; at most {} MiB on disk ({} MiB live then); closest to the \
         bound with {:.0} % of it ({} MiB, {} MiB live)",
        load.puts.get(),
        written / MIB,
        most.0 / MIB,
        most.1 / MIB,
        closest.0 * 100.0,
        closest.1 / MIB,
        closest.2 / MIB,
    );
    assert!(
        written > most.0,
        "so little was written that nothing had to be given back: {} MiB",
        written / MIB
    );
    let page = member.http_get("/metrics");
    for name in ["quorate_revlog_bytes", "quorate_revlog_merges_total"] {
        println!("{}", page.lines().find(|line| line.starts_with(name)).unwrap_or(name));
    }

    // kill -9: everything that was acknowledged is there, and the hash is the same.
    member.restart();
    run(async {
        let client = member.client();
        let again = client.hash_kv(hash.1, patience()).await.expect("a hash");
        assert_eq!((again.hash, again.hash_revision, again.compact_revision), hash);
        let versions = load.versions.take();
        for (n, version) in versions.iter().enumerate() {
            let value = value_of(&client, &key(n)).await.expect("it was put");
            let said: u64 =
                String::from_utf8_lossy(&value).split(' ').next().expect("a word").parse().expect("a number");
            assert!(said == *version, "{}: {said} is there, {version} was acknowledged", key(n));
        }
    });
}
