//! Values that few slots of a node have.

/// Maps slots, up to 64, to values. A slot without one takes a bit.
#[derive(Debug)]
pub(super) struct Sparse<T> {
    /// The slots that have a value.
    slots: u64,
    /// In order of their slots.
    values: Vec<T>,
}

impl<T> Default for Sparse<T> {
    fn default() -> Self {
        Sparse { slots: 0, values: Vec::new() }
    }
}

impl<T> Sparse<T> {
    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&T> {
        if self.has(slot) { Some(&self.values[self.place(slot)]) } else { None }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        let place = self.place(slot);
        if self.has(slot) { Some(&mut self.values[place]) } else { None }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        (0..64).filter(|slot| self.has(*slot)).zip(&self.values)
    }

    fn has(&self, slot: usize) -> bool {
        self.slots >> slot & 1 == 1
    }

    /// How many slots before this one have a value.
    fn place(&self, slot: usize) -> usize {
        (self.slots & below(slot)).count_ones() as usize
    }

    /// Gives a slot its value. Panics if it has one.
    pub(super) fn insert(&mut self, slot: usize, value: T) {
        assert!(!self.has(slot), "slot {slot} has a value");
        if self.values.len() == self.values.capacity() {
            self.values.reserve_exact(1 + self.values.len() / 8);
        }
        self.values.insert(self.place(slot), value);
        self.slots |= 1 << slot;
    }

    /// Takes a slot's value away.
    pub(super) fn take(&mut self, slot: usize) -> Option<T> {
        if !self.has(slot) {
            return None;
        }
        let value = self.values.remove(self.place(slot));
        self.slots &= !(1 << slot);
        if self.values.capacity() > self.values.len() + 1 + self.values.len() / 4 {
            self.values.shrink_to_fit();
        }
        Some(value)
    }

    /// Makes room for a new slot: those at or behind it move up by one.
    pub(super) fn open(&mut self, slot: usize) {
        let low = self.slots & below(slot);
        self.slots = low | (self.slots & !low) << 1;
    }

    /// Removes a slot with its value: those behind it move down by one.
    pub(super) fn close(&mut self, slot: usize) {
        self.take(slot);
        let low = self.slots & below(slot);
        self.slots = low | (self.slots & !low) >> 1;
    }

    /// Splits: what is at or behind `slot` is returned, counted from there.
    pub(super) fn split_off(&mut self, slot: usize) -> Sparse<T> {
        let values = self.values.split_off(self.place(slot));
        self.values.shrink_to_fit();
        let slots = self.slots.checked_shr(slot as u32).unwrap_or(0);
        self.slots &= below(slot);
        Sparse { slots, values }
    }

    /// Puts the slots of `other` behind the first `by`, which are all that this has.
    pub(super) fn append(&mut self, mut other: Sparse<T>, by: usize) {
        self.slots |= other.slots.checked_shl(by as u32).unwrap_or(0);
        self.values.reserve_exact(other.values.len());
        self.values.append(&mut other.values);
    }
}

/// All slots before this one.
fn below(slot: usize) -> u64 {
    if slot < 64 { (1 << slot) - 1 } else { u64::MAX }
}
