//! Crashes at every operation, power cuts with many seeds: what was synced is there, and beyond it only a
//! prefix of what was written; what a start took for durable stays.

use super::*;

/// One record that was appended.
#[derive(Clone, Debug)]
enum Record {
    Entry(Entry),
    State(HardState),
    Snapshot(SnapshotRecord),
}

/// What was appended, record by record, and how much of it was acknowledged.
#[derive(Default)]
struct History {
    created: bool,
    records: Vec<Record>,
    synced: usize,
}

/// What a reader must see after these records.
fn expected(records: &[Record]) -> Contents {
    let mut entries: Vec<Entry> = Vec::new();
    let mut snapshots = vec![SnapshotRecord::default()];
    let mut hard_state = None;
    for record in records {
        match record {
            Record::Entry(entry) => {
                entries.retain(|old| old.index < entry.index);
                entries.push(entry.clone());
            }
            Record::State(state) => hard_state = Some(*state),
            Record::Snapshot(snapshot) => snapshots.push(snapshot.clone()),
        }
    }
    let commit = hard_state.map_or(0, |state: HardState| state.commit);
    snapshots.retain(|snapshot| snapshot.index <= commit);
    let newest = snapshots.last().unwrap().clone();
    // A leader's snapshot comes when the log is behind, in this workload.
    if entries.last().is_some_and(|last| last.index < newest.index) {
        entries.clear();
    }
    if let Some(gap) = entries.windows(2).position(|pair| pair[1].index != pair[0].index + 1) {
        entries.drain(..=gap);
    }
    let last = entries.last().map(|entry| Position { term: entry.term, index: entry.index });
    let last = last.unwrap_or(Position { term: newest.term, index: newest.index });
    Contents { metadata: b"meta".to_vec(), state: hard_state, snapshots, entries, last }
}

/// A random workload, as far as the disk lets it go. Everything is recorded before it is handed over.
fn work(fs: &MemFs, seed: u64, history: &mut History) -> Result<()> {
    let mut random = Random(seed);
    let mut wal = Wal::create(Arc::new(fs.clone()), Path::new(DIR), b"meta", Limits::tiny())?;
    history.created = true;
    let (mut term, mut commit) = (1, 0);
    for _ in 0..14 {
        let last = expected(&history.records).last;
        let mut index = last.index + 1;
        match random.below(8) {
            0 if last.index > commit => {
                // A new leader replaces what is not committed.
                term += 1;
                index = commit + 1 + random.below(last.index - commit);
            }
            1 if commit > 0 && history.records.iter().any(|record| matches!(record, Record::Entry(_))) => {
                let own = snapshot(1, commit);
                let own = SnapshotRecord { term: term_at(&history.records, commit), ..own };
                history.records.push(Record::Snapshot(own.clone()));
                wal.append_snapshot(&own, None)?;
            }
            2 if random.below(3) == 0 => {
                term += 1;
                let leaders = snapshot(term, last.index + 5);
                commit = leaders.index;
                index = commit + 1;
                history.records.push(Record::Snapshot(leaders.clone()));
                history.records.push(Record::State(state(term, commit)));
                wal.append_snapshot(&leaders, Some(state(term, commit)))?;
            }
            3 => wal.prepare_next()?,
            _ => {}
        }
        let mut entries = Vec::new();
        for _ in 0..random.below(4) {
            let len = [0, 3, 40, 300, 700, 1500][random.below(6) as usize];
            let data: Vec<u8> = (0..len).map(|_| random.next() as u8 | 1).collect();
            entries.push(entry(term, index, data));
            index += 1;
        }
        if let Some(last) = entries.last() {
            commit = commit.max(last.index - random.below(2).min(last.index - commit));
        }
        history.records.extend(entries.iter().cloned().map(Record::Entry));
        history.records.push(Record::State(state(term, commit)));
        wal.append(entries.iter().map(Entry::as_ref), Some(state(term, commit)))?;
        wal.sync()?;
        history.synced = history.records.len();
    }
    Ok(())
}

fn term_at(records: &[Record], index: u64) -> u64 {
    let contents = expected(records);
    let entry = contents.entries.iter().find(|entry| entry.index == index).map(|entry| entry.term);
    entry
        .or(contents.snapshots.iter().find(|snapshot| snapshot.index == index).map(|snapshot| snapshot.term))
        .unwrap()
}

/// Runs the workload up to the given number of operations; the file system it leaves, and what it did.
fn halted(seed: u64, operations: u64) -> (MemFs, History, bool) {
    let fs = machine();
    let mut history = History::default();
    fs.halt_after(Some(operations));
    let done = work(&fs, seed, &mut history).is_ok();
    (fs, history, done)
}

/// Opens, checks against the history, takes over; how many records survived.
fn check(fs: &MemFs, history: &History, what: &str) -> Option<usize> {
    let opened = match open(fs) {
        Ok(opened) => opened,
        Err(Error::Missing(_)) if !history.created => return None,
        Err(error) => panic!("{what}: {error}"),
    };
    let found = contents(&opened).unwrap_or_else(|error| panic!("{what}: {error}"));
    let survived = (history.synced..=history.records.len())
        .rev()
        .find(|&count| expected(&history.records[..count]) == found)
        .unwrap_or_else(|| panic!("{what}: no prefix of what was written: {found:?}"));
    Some(survived)
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    for seed in 0..5 {
        for operations in 0.. {
            let (fs, history, done) = halted(seed, operations);
            fs.kill();
            check(&fs, &history, &format!("seed {seed}, {operations} operations"));
            if done {
                break;
            }
        }
    }
}

#[test]
fn a_power_cut_at_every_operation() {
    for seed in 0..6 {
        for operations in 0.. {
            let (fs, mut history, done) = halted(seed, operations);
            for cut in 0..12 {
                let what = format!("seed {seed}, {operations} operations, cut {cut}");
                let fs = fs.crashed(cut);
                let Some(survived) = check(&fs, &history, &what) else { continue };
                // What a start took over is durable, and so is what comes after it.
                let mut wal = open(&fs).unwrap().into_writer().unwrap();
                let last = expected(&history.records[..survived]).last;
                let next = entry(last.term.max(1), last.index + 1, vec![b'n'; 900]);
                append(&mut wal, std::slice::from_ref(&next), None);
                fs.power_cut(cut + 1000);
                let mut records = history.records[..survived].to_vec();
                records.push(Record::Entry(next));
                assert_eq!(read(&fs).unwrap(), expected(&records), "{what}, after the next start");
            }
            history.records.clear();
            if done {
                assert!(operations > 40, "seed {seed} did too little: {operations} operations");
                break;
            }
        }
    }
}

#[test]
fn a_power_cut_during_the_repair() {
    let mut repaired = 0;
    for seed in 0..3 {
        let (_, _, mut done) = halted(seed, 0);
        let mut operations = 5;
        while !done {
            let (fs, history, is_done) = halted(seed, operations);
            done = is_done;
            operations += 3;
            for cut in 0..6 {
                let torn = fs.crashed(cut);
                let what = format!("seed {seed}, {operations} operations, cut {cut}");
                let Some(survived) = check(&torn, &history, &what) else { continue };
                repaired += u32::from(open(&torn).unwrap().torn().is_some());
                for repair_operations in 0.. {
                    let fs = torn.copy();
                    let opened = open(&fs).unwrap();
                    fs.halt_after(Some(repair_operations));
                    let taken_over = opened.into_writer().is_ok();
                    fs.power_cut(cut + 2000 + repair_operations);
                    let what = format!("{what}, halted after {repair_operations} more");
                    assert_eq!(read(&fs).unwrap(), expected(&history.records[..survived]), "{what}");
                    if taken_over {
                        break;
                    }
                }
            }
        }
    }
    assert!(repaired > 10, "only {repaired} torn logs: the test sees too little");
}
