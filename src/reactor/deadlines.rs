//! [`Deadlines`]: which of many timers is due first.

use crate::time::Time;

/// Children of a heap node. Four 16-byte entries share a cache line, and the
/// tree is half as deep as a binary one.
const ARITY: usize = 4;

/// A 4-ary heap of deadlines that knows where each timer's entry lies.
///
/// Timers are plain indexes (of their slots). Arming and disarming cost
/// O(log n); moving a deadline *back* costs O(1): it is only noted, and the
/// entry sinks to its place when it surfaces at the top. The top is kept
/// settled, so the next deadline is always exact.
///
/// Equal deadlines come in the order in which they were armed, as long as fewer
/// than 2^31 timers were armed in between.
#[derive(Debug)]
pub(crate) struct Deadlines {
    heap: Vec<Entry>,
    /// By timer index.
    places: Vec<Place>,
    /// Given to the next deadline armed, wrapping.
    next_order: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Never later than the timer's deadline.
    due: Time,
    order: u32,
    timer: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// Where the timer's entry lies in the heap, or `UNARMED`.
    position: u32,
    order: u32,
    deadline: Time,
}

/// No heap is as long as this: timers live in at most 2^31 slots.
const UNARMED: u32 = u32::MAX;

impl Entry {
    #[inline]
    fn is_before(&self, other: &Entry) -> bool {
        match self.due.cmp(&other.due) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => (self.order.wrapping_sub(other.order) as i32) < 0,
            std::cmp::Ordering::Greater => false,
        }
    }
}

impl Deadlines {
    pub(crate) const fn new() -> Deadlines {
        Deadlines { heap: Vec::new(), places: Vec::new(), next_order: 0 }
    }

    /// How many timers are armed.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The earliest deadline and its timer.
    #[inline]
    pub(crate) fn first(&self) -> Option<(Time, u32)> {
        self.heap.first().map(|entry| (entry.due, entry.timer))
    }

    /// When `timer` is due, if it is armed.
    pub(crate) fn deadline(&self, timer: u32) -> Option<Time> {
        let place = self.places.get(timer as usize)?;
        (place.position != UNARMED).then_some(place.deadline)
    }

    /// Arms `timer`, or moves its deadline if it is armed already. Either way it
    /// comes after all timers that now have the same deadline.
    pub(crate) fn arm(&mut self, timer: u32, deadline: Time) {
        let order = self.next_order;
        self.next_order = order.wrapping_add(1);
        if timer as usize >= self.places.len() {
            let unarmed = Place { position: UNARMED, order, deadline };
            self.places.resize(timer as usize + 1, unarmed);
        }
        let place = &mut self.places[timer as usize];
        place.order = order;
        place.deadline = deadline;
        let position = place.position as usize;
        let entry = Entry { due: deadline, order, timer };
        if place.position == UNARMED {
            self.heap.push(entry);
            self.sift_up(self.heap.len() - 1, entry);
        } else if deadline < self.heap[position].due {
            self.sift_up(position, entry);
        } else if position == 0 {
            self.settle();
        }
    }

    /// Takes `timer` out; `false` if it was not armed.
    pub(crate) fn disarm(&mut self, timer: u32) -> bool {
        let Some(place) = self.places.get_mut(timer as usize) else { return false };
        if place.position == UNARMED {
            return false;
        }
        let position = std::mem::replace(&mut place.position, UNARMED) as usize;
        let last = self.heap.pop().expect("an armed timer has an entry in the heap");
        if position < self.heap.len() {
            if last.is_before(&self.heap[position]) {
                self.sift_up(position, last);
            } else {
                self.sift_down(position, last);
            }
        }
        if position == 0 {
            self.settle();
        }
        true
    }

    /// Lets entries at the top whose deadline was moved back sink, until the
    /// top tells the truth. Each sinking pays for one O(1) re-arm before it.
    fn settle(&mut self) {
        while let Some(&top) = self.heap.first() {
            let place = self.places[top.timer as usize];
            if place.order == top.order {
                break;
            }
            let entry = Entry { due: place.deadline, order: place.order, timer: top.timer };
            self.sift_down(0, entry);
        }
    }

    #[inline]
    fn put(&mut self, position: usize, entry: Entry) {
        self.heap[position] = entry;
        self.places[entry.timer as usize].position = position as u32;
    }

    /// Moves the hole at `position` up until `entry` fits in.
    fn sift_up(&mut self, mut position: usize, entry: Entry) {
        while position > 0 {
            let parent = (position - 1) / ARITY;
            if !entry.is_before(&self.heap[parent]) {
                break;
            }
            self.put(position, self.heap[parent]);
            position = parent;
        }
        self.put(position, entry);
    }

    /// Moves the hole at `position` down until `entry` fits in.
    fn sift_down(&mut self, mut position: usize, entry: Entry) {
        loop {
            let first = position * ARITY + 1;
            let end = (first + ARITY).min(self.heap.len());
            let Some(children) = self.heap.get(first..end) else { break };
            let Some((offset, least)) = children
                .iter()
                .enumerate()
                .reduce(|least, child| if child.1.is_before(least.1) { child } else { least })
            else {
                break;
            };
            if !least.is_before(&entry) {
                break;
            }
            self.put(position, *least);
            position = first + offset;
        }
        self.put(position, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The obvious way: a list in the order of arming.
    #[derive(Default)]
    struct Model(Vec<(Time, u32)>);

    impl Model {
        fn disarm(&mut self, timer: u32) -> bool {
            let before = self.0.len();
            self.0.retain(|armed| armed.1 != timer);
            self.0.len() < before
        }
        fn arm(&mut self, timer: u32, deadline: Time) {
            self.disarm(timer);
            self.0.push((deadline, timer));
        }
        fn first(&self) -> Option<(Time, u32)> {
            self.0.iter().copied().min_by_key(|armed| armed.0)
        }
    }

    fn check_heap(deadlines: &Deadlines) {
        for (position, entry) in deadlines.heap.iter().enumerate() {
            let place = deadlines.places[entry.timer as usize];
            assert_eq!(place.position as usize, position);
            assert!(entry.due <= place.deadline);
            if position > 0 {
                assert!(!entry.is_before(&deadlines.heap[(position - 1) / ARITY]));
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(
            first_order in prop::sample::select(vec![0, u32::MAX - 20]),
            steps in prop::collection::vec((0..40_u32, 0..30_u64, 0..4_u8), 0..400)
        ) {
            let mut deadlines = Deadlines { next_order: first_order, ..Deadlines::new() };
            let mut model = Model::default();
            for (timer, deadline, action) in steps {
                let deadline = Time::from_nanos(deadline);
                match action {
                    0 => prop_assert_eq!(deadlines.disarm(timer), model.disarm(timer)),
                    1 => if let Some((_, first)) = model.first() {
                        prop_assert!(deadlines.disarm(first));
                        model.disarm(first);
                    },
                    _ => {
                        deadlines.arm(timer, deadline);
                        model.arm(timer, deadline);
                    }
                }
                check_heap(&deadlines);
                prop_assert_eq!(deadlines.len(), model.0.len());
                prop_assert_eq!(deadlines.first(), model.first());
                let armed = model.0.iter().find(|armed| armed.1 == timer).map(|armed| armed.0);
                prop_assert_eq!(deadlines.deadline(timer), armed);
            }
            while let Some((due, timer)) = model.first() {
                prop_assert_eq!(deadlines.first(), Some((due, timer)));
                deadlines.disarm(timer);
                model.disarm(timer);
            }
            prop_assert_eq!(deadlines.first(), None);
        }
    }

    #[test]
    fn a_later_deadline_is_only_noted_until_it_surfaces() {
        let mut deadlines = Deadlines::new();
        for timer in 0..100 {
            deadlines.arm(timer, Time::from_nanos(u64::from(timer)));
        }
        let before: Vec<u32> = deadlines.heap.iter().map(|entry| entry.timer).collect();
        for timer in 50..100 {
            deadlines.arm(timer, Time::from_nanos(1000 + u64::from(timer)));
        }
        let after: Vec<u32> = deadlines.heap.iter().map(|entry| entry.timer).collect();
        assert_eq!(before, after);
        for timer in 0..50 {
            assert_eq!(deadlines.first().unwrap().1, timer);
            deadlines.disarm(timer);
        }
        assert_eq!(deadlines.first(), Some((Time::from_nanos(1050), 50)));
    }
}
