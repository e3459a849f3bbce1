//! What keys, versions and watches cost in memory, counted by the allocator. (`docs/performance.md` states the figures.)

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message as _;
use store::watch::{Answerer, Hub, HubLimits, Tail};
use store::{
    Location, ReadError, RecordKind, RecordSink, RecordSource, RecordVisitor, Revision, Settings, Store,
};
use wire::etcdserverpb as pb;

/// Bytes asked for and not given back.
static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of its own making.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` above, that is, from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A log that keeps nothing, so that what is counted is the store's.
struct Nowhere;

impl RecordSource for Nowhere {
    fn read(&self, _: Location, _: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError("nothing is kept".into()))
    }

    fn read_nowait(&self, at: Location, out: &mut [u8]) -> Result<bool, ReadError> {
        RecordSource::read(self, at, out).map(|()| true)
    }

    fn scan(&self, _: i64, _: &mut RecordVisitor<'_>) -> Result<(), ReadError> {
        Ok(())
    }
}

impl RecordSink for Nowhere {
    fn push(&mut self, _: RecordKind, revision: Revision, _: &[u8]) -> Location {
        Location(revision.main as u64)
    }

    fn read(&self, at: Location, out: &mut [u8]) -> Result<(), ReadError> {
        RecordSource::read(self, at, out)
    }
}

/// 16 bytes that are spread over all that there are, the same for the same number.
fn random_key(n: usize) -> Vec<u8> {
    // splitmix64.
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let n = n as u64 + 1;
    [mix(n).to_be_bytes(), mix(mix(n)).to_be_bytes()].concat()
}

/// Keys as Kubernetes has them, 60 bytes.
fn registry_key(n: usize) -> Vec<u8> {
    let random = random_key(n);
    let (namespace, pod) = (u16::from(random[0]) << 1 | u16::from(random[1] & 1), &random[2..7]);
    let pod: String = pod.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut key = format!("/registry/pods/namespace-{namespace:04}/application-{pod}-").into_bytes();
    key.resize(60, b'x');
    key
}

struct Filled {
    store: Store,
    nowhere: Nowhere,
}

impl Filled {
    fn new() -> Self {
        Filled { store: Store::new(Arc::new(Nowhere), Settings::default()), nowhere: Nowhere }
    }

    /// Puts each key once, and returns by how many bytes the store has grown.
    fn put(&mut self, key: fn(usize) -> Vec<u8>, count: usize) -> f64 {
        let before = HELD.load(Ordering::Relaxed);
        for n in 0..count {
            let put = pb::PutRequest { key: key(n).into(), value: "value".into(), ..Default::default() };
            let header = Some(pb::RequestHeader { id: 1, ..Default::default() });
            let entry = pb::InternalRaftRequest { header, put: Some(put), ..Default::default() };
            let applied = self.store.apply(&entry.encode_to_vec(), false, &mut self.nowhere).unwrap();
            assert!(applied.result.is_ok());
        }
        self.store.publish();
        HELD.load(Ordering::Relaxed) as f64 - before as f64
    }
}

/// Creates so many watches on one stream, and returns by how many bytes they have made the hub grow, each.
fn watch(count: usize, request: impl Fn(usize) -> pb::WatchCreateRequest) -> f64 {
    let store = Store::new(Arc::new(Nowhere), Settings::default());
    let reader = store.reader();
    let tail = Arc::new(Tail::new(reader.revision(), 0));
    let mut hub = Hub::new(reader, tail, Answerer::default(), HubLimits::DEFAULT);
    let stream = hub.open();
    let before = HELD.load(Ordering::Relaxed);
    for n in 0..count {
        hub.create(stream, &request(n));
        // What is said of it is the client's now.
        hub.take(stream);
    }
    hub.take_noted(&mut Vec::new());
    assert_eq!(hub.watches(), count);
    let after = HELD.load(Ordering::Relaxed);
    hub.close(stream);
    assert!(!hub.is_subscribed(), "its watches end with the stream");
    (after as f64 - before as f64) / count as f64
}

/// The binary's one test: another beside it would allocate too.
#[test]
fn memory_is_as_stated() {
    keys_and_versions();
    watches();
}

fn watches() {
    const WATCHES: usize = 10_000;
    let point = |key: Vec<u8>| pb::WatchCreateRequest { key: key.into(), ..Default::default() };
    let range = |from: Vec<u8>| {
        let mut to = from.clone();
        to.push(b'~');
        pb::WatchCreateRequest { key: from.into(), range_end: to.into(), ..Default::default() }
    };
    let distinct = watch(WATCHES, |n| point(random_key(n))) - 16.0;
    let same = watch(WATCHES, |_| point(random_key(0))) - 16.0;
    let ranges = watch(WATCHES, |n| range(random_key(n))) - 33.0;
    let long = watch(WATCHES, |n| point(registry_key(n))) - 60.0;
    println!(
        "bytes a watch beside its keys: distinct 16-byte keys {distinct:.1}; one such key {same:.1}; \
         ranges of such keys {ranges:.1}; distinct 60-byte keys {long:.1}"
    );
    assert!(distinct <= 260.0, "{distinct:.1} bytes a watch on a key of its own");
    assert!(same <= 190.0, "{same:.1} bytes a watch on one key");
    assert!(ranges <= 300.0, "{ranges:.1} bytes a watch on a range");
    assert!(long <= 330.0, "{long:.1} bytes a watch on a 60-byte key of its own");
}

fn keys_and_versions() {
    const KEYS: usize = 200_000;
    let mut random = Filled::new();
    let key = random.put(random_key, KEYS) / KEYS as f64 - 16.0;
    let second = random.put(random_key, KEYS) / KEYS as f64;
    random.store.check();
    drop(random);

    let mut registry = Filled::new();
    let registry_key = registry.put(registry_key, KEYS) / KEYS as f64 - 60.0;
    drop(registry);

    const FEW: usize = 20_000;
    let mut deep = Filled::new();
    deep.put(random_key, FEW);
    let further: f64 = (0..10).map(|_| deep.put(random_key, FEW)).sum::<f64>() / (10 * FEW) as f64;
    deep.store.check();

    println!(
        "bytes beside a 16-byte key: {key:.1}; beside a 60-byte key: {registry_key:.1}; \
         a second version: {second:.1}; each of ten further: {further:.1}"
    );
    assert!(key <= 100.0, "{key:.1} bytes beside a 16-byte key");
    assert!(registry_key <= 100.0, "{registry_key:.1} bytes beside a 60-byte key");
    assert!(second <= 80.0, "{second:.1} bytes a second version");
    assert!(further <= 48.0, "{further:.1} bytes each of ten further versions");
}
