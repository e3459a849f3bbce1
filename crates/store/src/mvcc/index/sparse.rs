//! Values that few slots of a node have.

/// Maps slots to values, in ascending order of slot. Empty it takes one word.
#[derive(Debug)]
pub(super) struct Sparse<T>(Option<Box<Entries<T>>>);

#[derive(Debug)]
struct Entries<T> {
    /// Apart from the values, which would be padded to twice their alignment.
    slots: Vec<u8>,
    values: Vec<T>,
}

impl<T> Default for Sparse<T> {
    fn default() -> Self {
        Sparse(None)
    }
}

impl<T> Sparse<T> {
    #[inline]
    pub(super) fn get(&self, slot: usize) -> Option<&T> {
        let entries = self.0.as_ref()?;
        entries.find(slot).ok().map(|place| &entries.values[place])
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        let entries = self.0.as_mut()?;
        entries.find(slot).ok().map(|place| &mut entries.values[place])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.0
            .iter()
            .flat_map(|entries| entries.slots.iter().map(|slot| usize::from(*slot)).zip(&entries.values))
    }

    /// Gives a slot its value. Panics if it has one.
    pub(super) fn insert(&mut self, slot: usize, value: T) {
        let entries =
            self.0.get_or_insert_with(|| Box::new(Entries { slots: Vec::new(), values: Vec::new() }));
        let place = entries.find(slot).expect_err("the slot has a value");
        if entries.values.len() == entries.values.capacity() {
            let more = 1 + entries.values.len() / 8;
            entries.slots.reserve_exact(more);
            entries.values.reserve_exact(more);
        }
        entries.slots.insert(place, slot as u8);
        entries.values.insert(place, value);
    }

    /// Takes a slot's value away.
    pub(super) fn take(&mut self, slot: usize) -> Option<T> {
        let entries = self.0.as_mut()?;
        let place = entries.find(slot).ok()?;
        entries.slots.remove(place);
        let value = entries.values.remove(place);
        if entries.slots.is_empty() {
            self.0 = None;
        }
        Some(value)
    }

    /// Makes room for a new slot: those at or behind it move up by one.
    pub(super) fn open(&mut self, slot: usize) {
        if let Some(entries) = &mut self.0 {
            let place = entries.find(slot).unwrap_or_else(|place| place);
            entries.slots[place..].iter_mut().for_each(|slot| *slot += 1);
        }
    }

    /// Removes a slot with its value: those behind it move down by one.
    pub(super) fn close(&mut self, slot: usize) {
        self.take(slot);
        if let Some(entries) = &mut self.0 {
            let place = entries.find(slot).unwrap_or_else(|place| place);
            entries.slots[place..].iter_mut().for_each(|slot| *slot -= 1);
        }
    }

    /// Splits: what is at or behind `slot` is returned, counted from there.
    pub(super) fn split_off(&mut self, slot: usize) -> Sparse<T> {
        let Some(entries) = &mut self.0 else { return Sparse(None) };
        let place = entries.find(slot).unwrap_or_else(|place| place);
        let mut slots = entries.slots.split_off(place);
        let values = entries.values.split_off(place);
        slots.iter_mut().for_each(|behind| *behind -= slot as u8);
        if entries.slots.is_empty() {
            self.0 = None;
        } else {
            entries.slots.shrink_to_fit();
            entries.values.shrink_to_fit();
        }
        if slots.is_empty() { Sparse(None) } else { Sparse(Some(Box::new(Entries { slots, values }))) }
    }

    /// Puts the slots of `other` behind the first `by`, which are all that this has.
    pub(super) fn append(&mut self, other: Sparse<T>, by: usize) {
        let Some(mut other) = other.0 else { return };
        other.slots.iter_mut().for_each(|slot| *slot += by as u8);
        match &mut self.0 {
            None => self.0 = Some(other),
            Some(entries) => {
                entries.slots.reserve_exact(other.slots.len());
                entries.values.reserve_exact(other.values.len());
                entries.slots.append(&mut other.slots);
                entries.values.append(&mut other.values);
            }
        }
    }
}

impl<T> Entries<T> {
    #[inline]
    fn find(&self, slot: usize) -> Result<usize, usize> {
        self.slots.binary_search(&(slot as u8))
    }
}
