//! The order in which etcd leaves what it sorts by something that several have in common: that of Go's `sort.Sort`
//! (pattern-defeating quicksort, without randomness of its own), which is not stable.
//!
//! A role's permissions are sorted by their keys alone, and of those with one key only the first is found again to be
//! changed. So members of either kind have to agree on which that is, or some of them deny what others allow.

/// Up to so many are sorted by insertion.
const INSERTION_MAX: usize = 12;

/// From so many on, an order that is nearly right is mended by moving a few, and pivots are chosen more carefully.
const LONG: usize = 50;

/// How many are moved, at most, to mend an order.
const MOVES_MAX: usize = 5;

/// As many swaps among those that a pivot is chosen from mean that they are in the opposite order.
const SWAPS_MAX: u32 = 12;

/// Sorts as `sort.Sort` does.
pub(super) fn sort<T>(list: &mut [T], is_less: impl Fn(&T, &T) -> bool) {
    let end = list.len();
    if end > 1 {
        Sorted { list, is_less }.quick(0, end, usize::BITS - end.leading_zeros());
    }
}

struct Sorted<'a, T, F> {
    list: &'a mut [T],
    is_less: F,
}

// Ranges are of places in the whole list, since some steps look at what is before theirs.
impl<T, F: Fn(&T, &T) -> bool> Sorted<'_, T, F> {
    fn less(&self, a: usize, b: usize) -> bool {
        (self.is_less)(&self.list[a], &self.list[b])
    }

    /// `patience`: after so many bad pivots a heap is made.
    fn quick(&mut self, mut from: usize, mut to: usize, mut patience: u32) {
        let (mut was_balanced, mut was_in_order) = (true, true);
        loop {
            let len = to - from;
            if len <= INSERTION_MAX {
                return self.insertion(from, to);
            }
            if patience == 0 {
                return self.heap(from, to);
            }
            if !was_balanced {
                self.scatter(from, to);
                patience -= 1;
            }
            let (mut pivot, swaps) = self.pivot(from, to);
            if swaps == SWAPS_MAX {
                self.list[from..to].reverse();
                pivot = to - 1 - (pivot - from);
            }
            let seems_sorted = swaps == 0 || swaps == SWAPS_MAX;
            if was_balanced && was_in_order && seems_sorted && self.mend(from, to) {
                return;
            }
            if from > 0 && !self.less(from - 1, pivot) {
                from = self.part_equal(from, to, pivot);
                continue;
            }
            let middle;
            (middle, was_in_order) = self.part(from, to, pivot);
            let (left, right) = (middle - from, to - middle);
            was_balanced = left.min(right) >= len / 8;
            if left < right {
                self.quick(from, middle, patience);
                from = middle + 1;
            } else {
                self.quick(middle + 1, to, patience);
                to = middle;
            }
        }
    }

    fn insertion(&mut self, from: usize, to: usize) {
        for next in from + 1..to {
            let mut at = next;
            while at > from && self.less(at, at - 1) {
                self.list.swap(at, at - 1);
                at -= 1;
            }
        }
    }

    fn heap(&mut self, from: usize, to: usize) {
        let len = to - from;
        for root in (0..=(len - 1) / 2).rev() {
            self.sift_down(root, len, from);
        }
        for last in (0..len).rev() {
            self.list.swap(from, from + last);
            self.sift_down(0, last, from);
        }
    }

    fn sift_down(&mut self, mut root: usize, len: usize, from: usize) {
        loop {
            let mut child = 2 * root + 1;
            if child >= len {
                return;
            }
            if child + 1 < len && self.less(from + child, from + child + 1) {
                child += 1;
            }
            if !self.less(from + root, from + child) {
                return;
            }
            self.list.swap(from + root, from + child);
            root = child;
        }
    }

    /// Moves three in the middle elsewhere, where the length says.
    fn scatter(&mut self, from: usize, to: usize) {
        let len = to - from;
        let mut random = len as u64;
        let mask = (1_u64 << (u64::BITS - random.leading_zeros())) - 1;
        let middle = from + len / 4 * 2;
        for place in middle - 1..=middle + 1 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let other = (random & mask) as usize;
            self.list.swap(place, from + if other >= len { other - len } else { other });
        }
    }

    /// A pivot's place, and how many swaps it took to find it.
    fn pivot(&self, from: usize, to: usize) -> (usize, u32) {
        let quarter = (to - from) / 4;
        let mut swaps = 0;
        let mut three = [1, 2, 3].map(|n| from + quarter * n);
        if to - from >= LONG {
            three = three.map(|at| self.median([at - 1, at, at + 1], &mut swaps));
        }
        (self.median(three, &mut swaps), swaps)
    }

    fn median(&self, [mut a, mut b, c]: [usize; 3], swaps: &mut u32) -> usize {
        let mut order = |x: usize, y: usize| {
            let is_swapped = self.less(y, x);
            *swaps += u32::from(is_swapped);
            if is_swapped { (y, x) } else { (x, y) }
        };
        (a, b) = order(a, b);
        (b, _) = order(b, c);
        order(a, b).1
    }

    /// Moves a few that stand wrong; whether all are in order then.
    fn mend(&mut self, from: usize, to: usize) -> bool {
        let mut at = from + 1;
        for _ in 0..MOVES_MAX {
            while at < to && !self.less(at, at - 1) {
                at += 1;
            }
            if at == to {
                return true;
            }
            if to - from < LONG {
                return false;
            }
            self.list.swap(at, at - 1);
            if at - from >= 2 {
                // Down to the list's beginning, not the range's.
                let mut left = at - 1;
                while left >= 1 && self.less(left, left - 1) {
                    self.list.swap(left, left - 1);
                    left -= 1;
                }
            }
            if to - at >= 2 {
                let mut right = at + 1;
                while right < to && self.less(right, right - 1) {
                    self.list.swap(right, right - 1);
                    right += 1;
                }
            }
        }
        false
    }

    /// Parts those below the pivot from the others: its place then, and whether nothing was moved for it.
    fn part(&mut self, from: usize, to: usize, pivot: usize) -> (usize, bool) {
        self.list.swap(from, pivot);
        let (mut low, mut high) = (from + 1, to - 1);
        let mut is_in_order = true;
        loop {
            while low <= high && self.less(low, from) {
                low += 1;
            }
            while low <= high && !self.less(high, from) {
                high -= 1;
            }
            if low > high {
                self.list.swap(high, from);
                return (high, is_in_order);
            }
            is_in_order = false;
            self.list.swap(low, high);
            low += 1;
            high -= 1;
        }
    }

    /// Parts those that equal the pivot from those above it, where none is below: where these begin.
    fn part_equal(&mut self, from: usize, to: usize, pivot: usize) -> usize {
        self.list.swap(from, pivot);
        let (mut low, mut high) = (from + 1, to - 1);
        loop {
            while low <= high && !self.less(from, low) {
                low += 1;
            }
            while low <= high && self.less(from, high) {
                high -= 1;
            }
            if low > high {
                return low;
            }
            self.list.swap(low, high);
            low += 1;
            high -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Vec<usize> {
        text.split(',').map(|n| n.parse().unwrap()).collect()
    }

    /// What Go 1.26 made of them: a line is how (`once`, after `each` that is added, or by its `heap`, which takes
    /// unlikely keys to get to), keys, and then where each stood before, or when it was added.
    #[test]
    fn equal_ones_end_where_go_leaves_them() {
        let mut lines = 0;
        for line in include_str!("order.txt").lines() {
            let [how, keys, expected] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let keyed: Vec<(usize, usize)> = numbers(keys).into_iter().zip(0..).collect();
            let mut list = Vec::new();
            for (n, item) in keyed.iter().enumerate() {
                list.push(*item);
                let is_less = |a: &(usize, usize), b: &(usize, usize)| a.0 < b.0;
                match (how, n + 1 == keyed.len()) {
                    ("each", _) | ("once", true) => sort(&mut list, is_less),
                    ("heap", true) => Sorted { list: &mut list, is_less }.heap(0, keyed.len()),
                    _ => {}
                }
            }
            let places: Vec<usize> = list.into_iter().map(|item| item.1).collect();
            assert_eq!(places, numbers(expected), "{how} {keys}");
            lines += 1;
        }
        assert_eq!(lines, 53);
    }
}
