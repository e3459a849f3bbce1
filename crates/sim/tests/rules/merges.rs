//! Merging of the revision log: rule 12, and what rules 7, 10 and 11 say of it.

use node::MergeStep;
use wire::etcdserverpb::CompactionRequest;

use super::*;

fn compact(ids: &mut LaneIds, revision: i64) -> Submission {
    let id = ids.next();
    let request = InternalRaftRequest {
        header: Some(RequestHeader { id: id.0, ..Default::default() }),
        compaction: Some(CompactionRequest { revision, physical: false }),
        ..Default::default()
    };
    proposal(id, request.encode_to_vec(), false)
}

/// Puts over few keys, and some deletes; then a compaction. Its work is done, and nothing is merged yet.
fn compacted(memory: &MemFs) -> Running {
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let mut member = ready(&fs);
    let mut ids = member.lane();
    for n in 0..60 {
        let key = format!("k{}", n % 9);
        member.submit(vec![match n % 7 {
            6 => delete(&mut ids, &key),
            _ => put(&mut ids, &key, &format!("{n:0120}")),
        }]);
        settle_without_merges(&mut member, &mut Told::default());
    }
    member.submit(vec![compact(&mut ids, 50)]);
    settle_without_merges(&mut member, &mut Told::default());
    assert_eq!((member.parts.reader.compacted(), member.parts.reader.finished_compaction()), (50, 50));
    member
}

#[test]
fn rule_12_a_merge_that_could_not_be_published_is_not_begun() {
    let memory = MemFs::new();
    let mut member = compacted(&memory);
    let mut ids = member.lane();
    member.submit(vec![compact(&mut ids, 55)]);
    let mut told = Told::default();
    // The revision log does not go on: its disk is full, or slow.
    for _ in 0..20 {
        member.consensus(NOW, &mut told);
        member.write_log(usize::MAX).expect("a healthy disk");
        member.apply(NOW, &mut told).expect("applies");
        member.compact();
    }
    assert_eq!(member.parts.reader.finished_compaction(), 55);
    let before = memory.operations();
    for _ in 0..5 {
        assert!(matches!(member.parts.merger.step().expect("a healthy disk"), MergeStep::Waiting));
    }
    assert_eq!(memory.operations(), before, "nothing is written that could not count");
    settle_without_merges(&mut member, &mut told);
    assert!(merge_all(&mut member, |_| {}).expect("a healthy disk") > 0);
}

/// Everything that can be read: the pairs at every revision that is not compacted, and its hash.
fn everything(member: &Running) -> Vec<(i64, Vec<u8>, u32)> {
    let reader = &member.parts.reader;
    let mut all = Vec::new();
    for revision in reader.compacted()..=reader.revision() {
        let mut body = Vec::new();
        let range = Range { key: b"\0", range_end: b"\0", revision, ..Default::default() };
        reader.range(&range, ReadMode::MayBlock, &mut body).expect("a read");
        // The compacted one's is a hash that the run has kept, or not.
        let hash =
            if revision == reader.compacted() { 0 } else { reader.hash_kv(revision).expect("a hash").0.hash };
        all.push((revision, body, hash));
    }
    all
}

fn merge_all(member: &mut Running, mut after_each: impl FnMut(&Running)) -> Result<u64, Error> {
    let mut merges = 0;
    for _ in 0..1000 {
        match member.parts.merger.step()? {
            MergeStep::Idle => return Ok(merges),
            MergeStep::Finished(_) => merges += 1,
            MergeStep::Working(_) | MergeStep::Waiting => {}
            MergeStep::Damaged(error) => panic!("{error}"),
        }
        after_each(member);
    }
    panic!("merges do not come to an end");
}

#[test]
fn rule_11_what_a_merge_drops_never_shows() {
    let memory = MemFs::new();
    let mut member = compacted(&memory);
    let before = everything(&member);
    let used = member.parts.merger.space().bytes;
    let merges = merge_all(&mut member, |member| assert!(everything(member) == before));
    assert!(merges.expect("a healthy disk") > 0);
    let space = member.parts.merger.space();
    assert!(space.bytes < used * 3 / 4, "{used} bytes, then {space:?}");
    drop(member);
    memory.kill();
    let fs: Arc<dyn Fs> = Arc::new(memory.clone());
    let member = start(&fs);
    assert!(everything(&member) == before, "after a restart");
    drop(member);
    let member = ready(&fs);
    assert!(everything(&member) == before, "once the compaction's work was done again");
}

/// The disk stops at every operation of the merges, then comes a kill or a power cut.
#[test]
fn rule_12_a_start_works_from_every_point_of_a_merge() {
    let memory = MemFs::new();
    let member = compacted(&memory);
    let before = everything(&member);
    drop(member);
    memory.kill();
    let mut stopped = 0;
    for operations in 0.. {
        let disk = memory.copy();
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let mut member = start(&fs);
        settle_without_merges(&mut member, &mut Told::default());
        let index = member.parts.applier.applied_index();
        disk.halt_after(Some(operations));
        let is_whole = merge_all(&mut member, |_| {}).is_ok();
        drop(member);
        for cut in 0..4 {
            let left = if cut == 0 { disk.copy() } else { disk.crashed(cut) };
            let what = format!("{operations} operations, cut {cut}");
            let fs: Arc<dyn Fs> = Arc::new(left.clone());
            let mut member =
                start_with(&fs, &settings(), 9).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(member.parts.found.last_index >= index, "{what}");
            assert!(everything(&member) == before, "{what}");
            member.settle(NOW, &mut Told::default()).expect("a healthy disk");
            assert!(everything(&member) == before, "{what}, settled");
        }
        if is_whole {
            break;
        }
        stopped += 1;
    }
    assert!(stopped > 10, "{stopped} operations");
}

/// A merge counts only once the compaction that allows it is durable in the revision log.
#[test]
fn rule_12_what_makes_a_record_dead_is_durable_first() {
    let memory = MemFs::new();
    let mut member = compacted(&memory);
    merge_all(&mut member, |_| {}).expect("a healthy disk");
    let mut told = Told::default();
    let mut ids = member.lane();
    let newest = member.parts.reader.revision();
    member.submit(vec![compact(&mut ids, newest)]);
    // All but the sync of the revision log.
    for _ in 0..100 {
        member.consensus(NOW, &mut told);
        member.write_log(usize::MAX).expect("a healthy disk");
        member.apply(NOW, &mut told).expect("applies");
        member.write_revisions().expect("a healthy disk");
        member.compact();
    }
    assert_eq!(member.parts.reader.finished_compaction(), newest);
    member.parts.merger.ask();
    let mut waited = 0;
    for _ in 0..100 {
        waited +=
            u64::from(matches!(member.parts.merger.step().expect("a healthy disk"), MergeStep::Waiting));
        let merged =
            memory.files().iter().filter(|file| file.to_string_lossy().contains("/rev/8000")).count();
        assert_eq!(merged, 1, "nothing that the compaction has dropped is left out yet");
    }
    assert!(waited > 10, "{waited} steps waited");
    member.sync_revisions().expect("a healthy disk");
    assert!(merge_all(&mut member, |_| {}).expect("a healthy disk") > 0);
}

/// A read that began before the places moved keeps the files that it reads from.
#[test]
fn rule_10_a_merged_segment_stays_until_its_readers_have_left() {
    let memory = MemFs::new();
    let mut member = compacted(&memory);
    let before = everything(&member);
    // A batch that is being applied reads too, until it is published.
    let mut told = Told::default();
    let files = || memory.files().iter().filter(|file| file.to_string_lossy().ends_with(".seg")).count();
    let reader = member.parts.log_reader.clone();
    let mut seen = 0;
    let count = files();
    let scanned = reader.scan(0, |_, _, _| {
        if seen == 5 {
            assert!(merge_all(&mut member, |_| {}).expect("a healthy disk") > 0);
            assert!(files() < count, "a scan keeps no names");
        }
        seen += 1;
        std::ops::ControlFlow::Continue(())
    });
    scanned.expect("what is read stays readable");
    assert!(everything(&member) == before);
    member.consensus(NOW, &mut told);
}

/// A disk that is full: the reserve is left alone, a merge that has no room is given up, and one that fits gives room.
#[test]
fn rule_7_a_merge_leaves_the_reserve_alone() {
    let memory = MemFs::new();
    let mut member = compacted(&memory);
    let before = everything(&member);
    let reserve = || -> Vec<_> {
        let files = memory.files().into_iter();
        files.filter(|file| file.to_string_lossy().contains("spare-")).collect()
    };
    let (spares, used) = (reserve(), memory.used());
    memory.set_capacity(Some(used));
    assert_eq!(merge_all(&mut member, |_| {}).expect("a full disk is no failure"), 0);
    assert_eq!((reserve(), memory.used()), (spares.clone(), used), "nothing is left behind");
    // A little room is enough to begin with.
    memory.set_capacity(Some(used + 1000));
    let mut merges = 0;
    for _ in 0..10 {
        merges +=
            merge_all(&mut member, |_| assert_eq!(reserve(), spares)).expect("a full disk is no failure");
    }
    assert!(merges > 0 && memory.used() < used, "{merges} merges, {} of {used} bytes", memory.used());
    assert!(everything(&member) == before);
}
