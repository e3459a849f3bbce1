use std::io;
use std::ops::Range;

use super::Error;
use super::format::{
    BRANCH, BUCKET_LEN, ELEMENT_BUCKET, ELEMENT_LEN, FREELIST, FREELIST_PAGE, LEAF, Meta, PageHeader,
    branch_element, leaf_element,
};
use super::layout::{Pages, Tree};
use super::plan::{Plan, PlannedBucket, check_lengths};

/// The second pass: writes the file front to back, exactly [`Plan::file_len`] bytes.
///
/// Give it the buckets and pairs that the plan was made from, in the same order; then [`Writer::finish`]. `sink` takes
/// each part of the file in turn, from a few bytes to a whole run of pages, and may block.
///
/// It keeps a leaf (16 pages and a pair at most) and, for each level of branches, two pages. Whatever goes wrong, what
/// was written is no database, and nothing more is: the receiver has to be told that the file is not whole.
pub struct Writer<S> {
    plan: Plan,
    /// How many buckets were begun.
    begun: usize,
    tree: Option<Tree<Vec<u8>>>,
    last_key: Vec<u8>,
    output: Output<S>,
    failed: bool,
}

/// Makes bytes of pages.
struct Output<S> {
    sink: S,
    page_size: usize,
    /// What follows the page that may be written last; pages of the bucket at hand are planned up to here.
    end: u64,
    /// The flags of all elements of leaves.
    flags: u32,
    /// Lengths of keys and values in the leaf being filled, and their bytes.
    pairs: Vec<(u32, u32)>,
    data: Vec<u8>,
    /// Reused for everything before the data of a page.
    head: Vec<u8>,
}

impl<S: FnMut(&[u8]) -> io::Result<()>> Writer<S> {
    /// Writes the first three pages: both meta pages and an empty freelist.
    ///
    /// # Errors
    /// [`Error::Sink`].
    pub fn new(plan: Plan, sink: S) -> Result<Writer<S>, Error> {
        let page_size = plan.page_size as usize;
        let (pairs, data, head) = (Vec::new(), Vec::new(), Vec::new());
        let mut output = Output { sink, page_size, end: 0, flags: 0, pairs, data, head };
        // Both say the same, as in a copy that bbolt makes of a database.
        let meta = |txid| Meta {
            page_size: plan.page_size,
            root: plan.root,
            sequence: 0,
            freelist: FREELIST_PAGE,
            pages: plan.pages,
            txid,
        };
        output.page(&meta(2).encode(0))?;
        output.page(&meta(1).encode(1))?;
        output.page(&PageHeader { id: FREELIST_PAGE, flags: FREELIST, count: 0, overflow: 0 }.encode())?;
        Ok(Writer { plan, begun: 0, tree: None, last_key: Vec::new(), output, failed: false })
    }

    /// Begins the next bucket.
    ///
    /// # Errors
    /// [`Error::PlanDiffers`] if another was planned, or the one before was planned to be longer; [`Error::Sink`].
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), Error> {
        self.guarded(|writer| {
            writer.end_bucket()?;
            let planned = writer.plan.buckets.get(writer.begun).filter(|planned| planned.name == name);
            let Some(planned) = planned else {
                return Err(differs(name, "it is not the bucket that was planned next"));
            };
            let start = writer.plan.end_of(writer.begun);
            writer.output.end = planned.end;
            writer.tree = Some(Tree::new(writer.plan.page_size, start));
            writer.last_key.clear();
            writer.begun += 1;
            Ok(())
        })
    }

    /// Writes the next pair.
    ///
    /// # Errors
    /// [`Error::KeyOrder`] if the key is not greater than the one before, [`Error::PairSize`], [`Error::NoBucket`];
    /// [`Error::PlanDiffers`] once the pages of the bucket are full; [`Error::Sink`].
    pub fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.guarded(|writer| {
            check_lengths(key.len(), value.len())?;
            let tree = writer.tree.as_mut().ok_or(Error::NoBucket)?;
            if key <= writer.last_key.as_slice() {
                return Err(Error::KeyOrder);
            }
            let result = tree.add(key.len(), value.len(), || key.to_vec(), &mut writer.output);
            result.map_err(|error| writer.plan.name_bucket(error, writer.begun))?;
            writer.output.push(key, value);
            writer.last_key.clear();
            writer.last_key.extend_from_slice(key);
            Ok(())
        })
    }

    /// Writes what is left, and gives the sink back. The file is whole when this has returned.
    ///
    /// # Errors
    /// [`Error::PlanDiffers`] if more was planned; [`Error::Sink`].
    pub fn finish(mut self) -> Result<S, Error> {
        self.guarded(|writer| {
            writer.end_bucket()?;
            if let Some(missing) = writer.plan.buckets.get(writer.begun) {
                return Err(differs(&missing.name, "it was planned and is not written"));
            }
            let output = &mut writer.output;
            output.end = writer.plan.pages;
            output.flags = ELEMENT_BUCKET;
            let mut tree = Tree::new(writer.plan.page_size, writer.plan.end_of(writer.begun));
            for PlannedBucket { name, root, .. } in &writer.plan.buckets {
                let mut value = [0; BUCKET_LEN];
                value[..8].copy_from_slice(&root.to_le_bytes());
                tree.add(name.len(), value.len(), || name.clone(), output)?;
                output.push(name, &value);
            }
            let written = tree.finish(output)?;
            assert_eq!(
                written,
                (writer.plan.root, writer.plan.pages),
                "the root bucket is as it was planned"
            );
            Ok(())
        })?;
        Ok(self.output.sink)
    }

    fn end_bucket(&mut self) -> Result<(), Error> {
        let Some(tree) = self.tree.take() else { return Ok(()) };
        let (root, end) =
            tree.finish(&mut self.output).map_err(|error| self.plan.name_bucket(error, self.begun))?;
        let planned = &self.plan.buckets[self.begun - 1];
        if (root, end) != (planned.root, planned.end) {
            let what = format!("it ends before page {end}, and not {}", planned.end);
            return Err(differs(&planned.name, &what));
        }
        Ok(())
    }

    fn guarded(&mut self, step: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if self.failed {
            return Err(Error::WriterFailed);
        }
        let result = step(self);
        self.failed = result.is_err();
        result
    }
}

impl Plan {
    /// The first page behind those of the first `count` buckets.
    fn end_of(&self, count: usize) -> u64 {
        count.checked_sub(1).map_or(FREELIST_PAGE + 1, |last| self.buckets[last].end)
    }

    /// Says in which bucket it was, the `begun`-th.
    fn name_bucket(&self, error: Error, begun: usize) -> Error {
        match error {
            Error::PlanDiffers { what, .. } => differs(&self.buckets[begun - 1].name, &what),
            other => other,
        }
    }
}

fn differs(bucket: &[u8], what: &str) -> Error {
    Error::PlanDiffers { bucket: String::from_utf8_lossy(bucket).into_owned(), what: what.to_owned() }
}

impl<S: FnMut(&[u8]) -> io::Result<()>> Output<S> {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.pairs.push((key.len() as u32, value.len() as u32));
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    /// A page that begins with these bytes and goes on with zeros.
    fn page(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.head.clear();
        self.head.extend_from_slice(bytes);
        self.head.resize(self.page_size, 0);
        (self.sink)(&self.head).map_err(Error::Sink)
    }

    /// Begins a run with its header; the elements follow.
    fn begin_run(&mut self, run: &Range<u64>, flags: u16, count: usize) -> Result<(), Error> {
        if run.end > self.end {
            return Err(differs(
                &[],
                &format!("it needs page {}, and ends before {}", run.end - 1, self.end),
            ));
        }
        let count = u16::try_from(count).ok().filter(|count| *count < u16::MAX);
        let count = count.expect("the layout ends a run before it has so many elements");
        let overflow = u32::try_from(run.end - run.start - 1).expect("no pair has so many pages");
        self.head.clear();
        self.head.extend_from_slice(&PageHeader { id: run.start, flags, count, overflow }.encode());
        Ok(())
    }

    /// Writes the head and the data of a run, and zeros up to its end.
    fn end_run(&mut self, run: &Range<u64>) -> Result<(), Error> {
        let len = (run.end - run.start) as usize * self.page_size;
        self.data.resize(len - self.head.len(), 0);
        (self.sink)(&self.head).map_err(Error::Sink)?;
        (self.sink)(&self.data).map_err(Error::Sink)?;
        self.data.clear();
        Ok(())
    }
}

/// Where the data of element `index` of `count` is, `before` bytes behind the first's, from the element on.
fn position(index: usize, count: usize, before: usize) -> u32 {
    u32::try_from(ELEMENT_LEN * (count - index) + before).expect("a run that is planned has such positions")
}

impl<S: FnMut(&[u8]) -> io::Result<()>> Pages<Vec<u8>> for Output<S> {
    fn leaf(&mut self, run: Range<u64>) -> Result<(), Error> {
        let count = self.pairs.len();
        self.begin_run(&run, LEAF, count)?;
        let mut before = 0;
        for (index, (key, value)) in self.pairs.drain(..).enumerate() {
            let element = leaf_element(self.flags, position(index, count, before), key, value);
            self.head.extend_from_slice(&element);
            before += key as usize + value as usize;
        }
        assert_eq!(before, self.data.len(), "the data of {run:?}");
        self.end_run(&run)
    }

    /// The leaf before is written, so its buffer is free.
    fn branch(&mut self, run: Range<u64>, children: &[(Vec<u8>, u64)]) -> Result<(), Error> {
        assert!(self.data.is_empty() && self.pairs.is_empty(), "a leaf is written before its branch");
        self.begin_run(&run, BRANCH, children.len())?;
        for (index, (key, child)) in children.iter().enumerate() {
            assert!(*child < run.start, "child {child} of {run:?}");
            let position = position(index, children.len(), self.data.len());
            self.head.extend_from_slice(&branch_element(position, key.len() as u32, *child));
            self.data.extend_from_slice(key);
        }
        self.end_run(&run)
    }
}
