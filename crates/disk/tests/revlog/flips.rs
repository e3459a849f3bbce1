//! Rule 5: any single byte of any file changed gives a refusal naming file and offset, or no difference, or
//! (in frames that nothing vouches for) a cut tail.

use std::sync::Arc;

use disk::revlog::{Error, Limits};
use disk::{Fs, MemFs};

use crate::harness::{Log, Rng, image, open};

#[test]
fn every_byte() {
    let fs = MemFs::new();
    let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    let mut rng = Rng(7);
    while log.model.iter().filter(|batch| batch.full).count() < 3 {
        log.random_frame(&mut rng);
        log.write_all().unwrap();
        log.sync().unwrap();
    }
    for _ in 0..4 {
        log.push(&rng.bytes(60));
        log.finish(b"state");
        log.write_all().unwrap();
        log.sync().unwrap();
    }
    assert_eq!(log.model.iter().filter(|batch| batch.full).count(), 3, "the last frames share a segment");
    let model = log.model.clone();
    // Each frame was built after the one before it was synced: only the last one has no voucher.
    let vouched = model.len() - 1;
    drop(log);
    fs.kill();

    let (mut refused, mut cut, mut same) = (0, 0, 0);
    for (path, bytes) in image(&fs) {
        for offset in 0..bytes.len() as u64 {
            for mask in [1, 0x80, 0xff] {
                let copy = fs.copy();
                copy.flip(&path, offset, mask).unwrap();
                let before = image(&copy);
                let shared: Arc<dyn Fs> = Arc::new(copy.clone());
                match open(&shared, &Limits::tiny()) {
                    Err(
                        Error::Damaged { file, offset: at, .. } | Error::Unsupported { file, offset: at, .. },
                    ) => {
                        refused += 1;
                        assert_eq!(std::path::Path::new("/").join(file), path, "flip at {offset}");
                        assert!(at <= offset, "flip at {offset} of {}, refused at {at}", path.display());
                    }
                    Err(error) => panic!("flip at {offset} of {}: {error}", path.display()),
                    Ok((opened, seen)) => {
                        assert_eq!(seen.batches[..], model[..seen.batches.len()]);
                        if seen.batches.len() == model.len() {
                            same += 1;
                        } else {
                            cut += 1;
                            assert_eq!(seen.batches.len(), vouched, "flip at {offset} of {}", path.display());
                            assert!(opened.torn().is_some_and(|torn| torn.offset <= offset));
                            let index = model[vouched].applied.index;
                            let error = opened.require_applied(index).unwrap_err();
                            assert!(matches!(error, Error::Damaged { .. }), "{error}");
                            opened.require_applied(model[vouched - 1].applied.index).unwrap();
                        }
                    }
                }
                assert_eq!(before, image(&copy), "opening writes nothing");
            }
        }
    }
    assert!(refused > 1000 && cut > 100 && same > 100, "refused {refused}, cut {cut}, same {same}");
}

/// What the caller's files lost is damage too: a segment that is missing, cut short, or another log's.
#[test]
fn missing_and_foreign_segments() {
    let fs = MemFs::new();
    let mut log = Log::open(fs.clone(), &Limits::tiny()).unwrap();
    let mut rng = Rng(1);
    while log.model.iter().filter(|batch| batch.full).count() < 4 {
        log.random_frame(&mut rng);
        log.write_all().unwrap();
    }
    log.sync().unwrap();
    drop(log);
    fs.kill();
    let path = |number: u32| format!("member/rev/{number:08x}.seg");
    let refusal = |fs: &MemFs| {
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        match open(&shared, &Limits::tiny()) {
            Ok(_) => panic!("opened"),
            Err(error) => error.to_string(),
        }
    };
    for number in 1..=3 {
        let copy = fs.copy();
        copy.remove(path(number).as_ref()).unwrap();
        let error = refusal(&copy);
        assert!(error.contains(&path(number + 1)) && error.contains("is missing"), "{error}");

        let copy = fs.copy();
        let bytes = copy.read(path(number)).unwrap();
        copy.put(path(number), &bytes[..bytes.len() - 1]).unwrap();
        let error = refusal(&copy);
        assert!(error.contains(&path(number)) && error.contains("is damaged"), "{error}");

        let copy = fs.copy();
        copy.put(path(number), &[]).unwrap();
        let error = refusal(&copy);
        assert!(error.contains(&path(number)) && error.contains("header is cut short"), "{error}");
    }
    let copy = fs.copy();
    copy.put("member/rev/1.seg", b"").unwrap();
    assert!(refusal(&copy).contains("not the name of a segment"));

    // A frame that lies where another one should: the same bytes, one segment over.
    let copy = fs.copy();
    copy.put(path(2), &fs.read(path(3)).unwrap()).unwrap();
    assert!(refusal(&copy).contains("the header is that of segment 3"));
}
