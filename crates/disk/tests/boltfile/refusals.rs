//! What cannot be written is refused, and a file that is not as planned is never finished.

use std::io;

use disk::boltfile::{Error, Plan, Planner, Writer};

type Pair = (&'static [u8], &'static [u8]);

fn plan(buckets: &[(&str, &[Pair])]) -> Plan {
    let mut planner = Planner::new(512).unwrap();
    for (name, pairs) in buckets {
        planner.bucket(name.as_bytes()).unwrap();
        for (key, value) in *pairs {
            planner.pair(key.len(), value.len()).unwrap();
        }
    }
    planner.finish()
}

/// Writes `buckets` to the plan of others, and answers what came of it and how many bytes were written.
fn write(plan: Plan, buckets: &[(&str, &[Pair])]) -> (Result<(), Error>, u64) {
    let mut written = 0;
    let mut write = || {
        let mut writer = Writer::new(plan.clone(), |bytes: &[u8]| {
            written += bytes.len() as u64;
            Ok(())
        })?;
        for (name, pairs) in buckets {
            writer.bucket(name.as_bytes())?;
            for (key, value) in *pairs {
                writer.pair(key, value)?;
            }
        }
        writer.finish().map(drop)
    };
    let result = write();
    (result, written)
}

#[test]
fn page_sizes() {
    for size in [0, 1, 256, 511, 513, 4095, 1 << 17, 1 << 31] {
        assert!(matches!(Planner::new(size), Err(Error::PageSize(refused)) if refused == size));
    }
}

#[test]
fn lengths_and_order() {
    let mut planner = Planner::new(512).unwrap();
    assert!(matches!(planner.pair(1, 1), Err(Error::NoBucket)));
    assert!(matches!(planner.bucket(b""), Err(Error::PairSize { .. })));
    planner.bucket(b"b").unwrap();
    for (key, value) in [(0, 1), (32_769, 1), (1, (1 << 31) - 1)] {
        assert!(matches!(planner.pair(key, value), Err(Error::PairSize { .. })));
    }
    assert!(matches!(planner.bucket(b"b"), Err(Error::KeyOrder)));
    assert!(matches!(planner.bucket(b"a"), Err(Error::KeyOrder)));
    planner.pair(1, 1).unwrap();
    let plan = planner.finish();

    let (result, _) = write(plan.clone(), &[("b", &[(b"", b"v")])]);
    assert!(matches!(result, Err(Error::PairSize { .. })));
    let two: &[(&str, &[Pair])] = &[("b", &[(b"k", b"v"), (b"l", b"v")])];
    for second in [b"k", b"j"] {
        let (result, _) = write(self::plan(two), &[("b", &[(b"k", b"v"), (second, b"v")])]);
        assert!(matches!(result, Err(Error::KeyOrder)));
    }
    let mut writer = Writer::new(plan, |_: &[u8]| Ok(())).unwrap();
    assert!(matches!(writer.pair(b"k", b"v"), Err(Error::NoBucket)));
    assert!(matches!(writer.bucket(b"b"), Err(Error::WriterFailed)));
}

/// Whatever differs and would give other pages is found, at the end of the bucket at the latest, and not a byte more
/// than planned is written. What differs within the same pages is a sound file of the same length.
#[test]
fn another_file_than_planned() {
    const LONG: &[u8] = &[b'v'; 300];
    let planned: &[(&str, &[Pair])] = &[
        ("a", &[(b"1", LONG), (b"2", LONG), (b"3", LONG), (b"4", LONG), (b"5", LONG)]),
        ("b", &[(b"1", b"")]),
    ];
    let plan = plan(planned);
    assert!(write(plan.clone(), planned).0.is_ok());
    let others: [&[(&str, &[Pair])]; 9] = [
        &[],
        &planned[..1],
        &planned[1..],
        &[("a", planned[0].1), ("c", &[])],
        &[("a", &planned[0].1[..2]), planned[1]],
        &[("a", &[]), planned[1]],
        &[("a", &[(b"1", &[0; 5000])]), planned[1]],
        &[planned[0], ("b", &[(b"1", LONG), (b"2", LONG), (b"3", LONG)])],
        &[planned[0], planned[1], ("c", &[])],
    ];
    for (at, other) in others.into_iter().enumerate() {
        let (result, written) = write(plan.clone(), other);
        let error = result.unwrap_err();
        assert!(matches!(error, Error::PlanDiffers { .. }), "{at}: {error}");
        assert!(error.to_string().contains("differs from what was planned"), "{error}");
        assert!(written < plan.file_len(), "{at}: {written} of {} written", plan.file_len());
    }
    let (result, written) = write(plan.clone(), &[planned[0], ("b", &[(b"1", b"longer")])]);
    result.unwrap();
    assert_eq!(written, plan.file_len());
}

#[test]
fn a_sink_that_fails() {
    let pairs: &[(&str, &[Pair])] = &[("a", &[(b"1", &[1; 300]), (b"2", &[2; 300]), (b"3", &[3; 300])])];
    let plan = plan(pairs);
    let mut failures = 0;
    for room in (0..plan.file_len()).step_by(256) {
        let mut written = 0;
        let sink = |bytes: &[u8]| {
            written += bytes.len() as u64;
            if written > room { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        };
        let Ok(mut writer) = Writer::new(plan.clone(), sink) else {
            failures += 1;
            continue;
        };
        writer.bucket(b"a").unwrap();
        let results: Vec<_> = pairs[0].1.iter().map(|(key, value)| writer.pair(key, value)).collect();
        let failed = results.iter().position(Result::is_err);
        if let Some(at) = failed {
            assert!(matches!(results[at], Err(Error::Sink(_))));
            assert!(results[at + 1..].iter().all(|result| matches!(result, Err(Error::WriterFailed))));
        }
        match writer.finish() {
            Err(Error::WriterFailed) => assert!(failed.is_some()),
            Err(error) => assert!(matches!(error, Error::Sink(_)) && failed.is_none()),
            Ok(_) => panic!("finished in {room} bytes"),
        }
        failures += 1;
    }
    assert_eq!(failures, plan.file_len().div_ceil(256));
}
