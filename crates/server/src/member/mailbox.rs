//! A queue towards a thread that takes everything at once: between threads travel batches, and a thread that is
//! busy is not woken.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Makes a queue that refuses, or makes wait, beyond `weight_max`. What its receiver has taken counts no more.
pub fn mailbox<T>(weight_max: u64) -> (Sender<T>, Receiver<T>) {
    make(weight_max, false)
}

/// Makes a queue whose items go on counting until the receiver says that it is done with them
/// ([`Receiver::release`]): for one that may have to keep them.
pub fn holding_mailbox<T>(weight_max: u64) -> (Sender<T>, Receiver<T>) {
    make(weight_max, true)
}

fn make<T>(weight_max: u64, holds: bool) -> (Sender<T>, Receiver<T>) {
    let state = State { items: Vec::new(), weight: 0, closed: false, waiting: false, boundless: false };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        arrived: Condvar::new(),
        left: Condvar::new(),
        weight_max,
        holds,
    });
    (Sender(shared.clone()), Receiver(shared))
}

struct Shared<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    left: Condvar,
    weight_max: u64,
    holds: bool,
}

struct State<T> {
    items: Vec<T>,
    weight: u64,
    closed: bool,
    /// Nobody is made to wait any more.
    boundless: bool,
    /// The receiver sleeps: only then is it worth waking.
    waiting: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic anywhere ends the process; a half-made change cannot be seen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, mut state: MutexGuard<'_, State<T>>, item: T, weight: u64) {
        state.items.push(item);
        state.weight += weight;
        let wake = std::mem::take(&mut state.waiting);
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
    }
}

/// The end that many threads may hold.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Sender(self.0.clone())
    }
}

impl<T> Sender<T> {
    /// Queues an item that must not be refused; its number is bounded by what caused it.
    pub fn send(&self, item: T) {
        self.0.push(self.0.lock(), item, 0);
    }

    /// Queues an item of some weight, or gives it back if the queue is full.
    pub fn try_send(&self, item: T, weight: u64) -> Result<(), T> {
        let state = self.0.lock();
        if state.closed || (state.weight > 0 && state.weight + weight > self.0.weight_max) {
            return Err(item);
        }
        self.0.push(state, item, weight);
        Ok(())
    }

    /// Queues an item of some weight, waiting while the queue is full.
    pub fn send_waiting(&self, item: T, weight: u64) {
        let mut state = self.0.lock();
        while !state.boundless && state.weight > 0 && state.weight + weight > self.0.weight_max {
            state = self.0.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        self.0.push(state, item, weight);
    }

    /// Lets senders wait no longer: the end is near, and what is still to come is bounded by what caused it.
    pub fn admit_all(&self) {
        self.0.lock().boundless = true;
        self.0.left.notify_all();
    }

    /// Lets the receiver end once it has taken what is there.
    pub fn close(&self) {
        self.admit_all();
        self.0.lock().closed = true;
        self.0.arrived.notify_one();
    }
}

/// The end that one thread holds.
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// Swaps everything queued into `into`, which must be empty, waiting for something until `deadline`. False when
    /// the queue is closed and empty.
    pub fn receive(&self, into: &mut Vec<T>, deadline: Option<Instant>) -> bool {
        debug_assert!(into.is_empty());
        let mut state = self.0.lock();
        while state.items.is_empty() && !state.closed {
            state.waiting = true;
            state = match deadline {
                None => self.0.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
                    self.0.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.waiting = false;
        std::mem::swap(&mut state.items, into);
        let was_full = !self.0.holds && std::mem::take(&mut state.weight) > 0;
        let open = !state.closed;
        drop(state);
        if was_full {
            self.0.left.notify_all();
        }
        open || !into.is_empty()
    }

    /// Ends the counting of `weight` of what was taken from a [`holding_mailbox`].
    pub fn release(&self, weight: u64) {
        if weight > 0 {
            self.0.lock().weight -= weight;
            self.0.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_queued_arrives_in_one_batch_and_in_order() {
        let (sender, receiver) = mailbox(10);
        sender.send(1);
        assert_eq!(sender.try_send(2, 9), Ok(()));
        assert_eq!(sender.try_send(3, 2), Err(3), "full");
        let mut batch = Vec::new();
        assert!(receiver.receive(&mut batch, None));
        assert_eq!(batch, [1, 2]);
        batch.clear();
        assert_eq!(sender.try_send(3, 99), Ok(()), "one item of any weight is taken");
        sender.close();
        assert!(receiver.receive(&mut batch, None), "what was queued before the end is not lost");
        batch.clear();
        assert!(!receiver.receive(&mut batch, None));
    }

    #[test]
    fn a_full_queue_makes_its_sender_wait() {
        let (sender, receiver) = mailbox(1);
        let sending = std::thread::spawn(move || (0..100).for_each(|n| sender.send_waiting(n, 1)));
        let mut got = Vec::new();
        while got.len() < 100 {
            let mut batch = Vec::new();
            assert!(receiver.receive(&mut batch, None));
            assert!(batch.len() <= 1, "{batch:?} is more than the queue holds");
            got.extend(batch);
        }
        assert_eq!(got, (0..100).collect::<Vec<_>>());
        sending.join().expect("the sender ends");
    }

    #[test]
    fn what_the_receiver_keeps_goes_on_counting() {
        let (sender, receiver) = holding_mailbox(10);
        assert_eq!(sender.try_send(1, 6), Ok(()));
        let mut batch = Vec::new();
        assert!(receiver.receive(&mut batch, None));
        assert_eq!(sender.try_send(2, 6), Err(2), "taken and not done with");
        receiver.release(6);
        assert_eq!(sender.try_send(2, 6), Ok(()));
        // At the end nobody waits, even if the receiver is never done.
        let waiting = std::thread::spawn({
            let sender = sender.clone();
            move || sender.send_waiting(3, 6)
        });
        sender.admit_all();
        waiting.join().expect("the sender ends");
        batch.clear();
        assert!(receiver.receive(&mut batch, None));
        assert_eq!(batch, [2, 3]);
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let (_sender, receiver) = mailbox::<u8>(1);
        assert!(receiver.receive(&mut Vec::new(), Some(Instant::now())));
    }
}
