//! Rings with the kernel's side played on ordinary memory: whatever the order in which both sides get on, nothing
//! is lost, doubled or changed. No system calls but for memory, so that Miri can run it.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const SIZE: u32 = 8;
/// Not where Linux has them, and with gaps.
const LAYOUT: Layout = Layout { producer: 64, consumer: 192, flags: 8, entries: 320 };

/// The other side, written after the description of the rings and not after our code.
struct Kernel<E: Entry> {
    producer: Part<AtomicU32>,
    consumer: Part<AtomicU32>,
    flags: Part<AtomicU32>,
    cells: Part<E::Cell>,
}

impl<E: Entry> Kernel<E> {
    /// With a ring in which `start` entries have come and gone.
    fn new(start: u32) -> (Self, Ring<E>) {
        let mapping = Arc::new(Mapping::private(Ring::<E>::length(&LAYOUT, SIZE)).unwrap());
        let index = |offset| mapping.part::<AtomicU32>(offset, 1);
        let kernel = Self {
            producer: index(64),
            consumer: index(192),
            flags: index(8),
            cells: mapping.part(320, SIZE as usize),
        };
        kernel.producer[0].store(start, Ordering::Relaxed);
        kernel.consumer[0].store(start, Ordering::Relaxed);
        (kernel, Ring::new(&mapping, &LAYOUT, SIZE))
    }

    fn used(&self) -> u32 {
        let (producer, consumer) = (&self.producer[0], &self.consumer[0]);
        producer.load(Ordering::Acquire).wrapping_sub(consumer.load(Ordering::Acquire))
    }

    /// Puts an entry into the ring, if there is room.
    fn put(&self, entry: E) -> bool {
        assert!(self.used() <= SIZE);
        let has_room = self.used() < SIZE;
        if has_room {
            let index = self.producer[0].load(Ordering::Relaxed);
            entry.store(&self.cells[(index % SIZE) as usize]);
            self.producer[0].store(index.wrapping_add(1), Ordering::Release);
        }
        has_room
    }

    /// Takes the oldest entry, if there is one.
    fn take(&self) -> Option<E> {
        assert!(self.used() <= SIZE);
        (self.used() > 0).then(|| {
            let index = self.consumer[0].load(Ordering::Relaxed);
            let entry = E::load(&self.cells[(index % SIZE) as usize]);
            self.consumer[0].store(index.wrapping_add(1), Ordering::Release);
            entry
        })
    }
}

/// The n-th entry.
fn descriptor(n: u64) -> Descriptor {
    Descriptor { address: n * 2048 + n % 2048, length: (n * 7 % 2048) as u32, options: (n % 2) as u32 }
}

/// What one of the two sides does.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// We write a batch of so many if there is room, and show it.
    Write(u32),
    /// We read at most so many.
    Read(u32),
    /// The kernel does its part with at most so many.
    Kernel(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let count = 0..SIZE + 3;
    let step = prop_oneof![
        count.clone().prop_map(Step::Write),
        count.clone().prop_map(Step::Read),
        count.prop_map(Step::Kernel)
    ];
    proptest::collection::vec(step, 1..60)
}

/// Anywhere, and often just before the indices wrap.
fn start() -> impl Strategy<Value = u32> {
    prop_oneof![any::<u32>(), u32::MAX - 3 * SIZE..=u32::MAX, Just(0)]
}

/// Entries that go one way and those that go the other, after all steps.
fn check(start: u32, steps: &[Step]) -> Result<(), TestCaseError> {
    let (sink, ring) = Kernel::<Descriptor>::new(start);
    let mut producer = Producer::new(ring);
    let (source, ring) = Kernel::<u64>::new(start);
    let mut consumer = Consumer::new(ring);
    let (mut written, mut on_the_way) = (0, VecDeque::new());
    let (mut put, mut read) = (0, 0);
    for &step in steps {
        match step {
            Step::Write(count) => {
                prop_assert_eq!(producer.has_room(count), on_the_way.len() + count as usize <= SIZE as usize);
                let batch = if producer.has_room(count) { count } else { 0 };
                let batch: Vec<_> = (written..written + u64::from(batch)).map(descriptor).collect();
                // One by one or all together.
                if count % 2 == 0 {
                    batch.iter().for_each(|&entry| producer.write(entry));
                } else {
                    producer.write_all(&batch, |entry| entry);
                }
                prop_assert_eq!(sink.used() as usize, on_the_way.len(), "not shown yet");
                producer.publish();
                written += batch.len() as u64;
                on_the_way.extend(batch);
            }
            Step::Read(limit) => {
                let expected = (put - read).min(u64::from(limit));
                let count = consumer.read(limit, |entry| {
                    assert_eq!(entry, read);
                    read += 1;
                });
                prop_assert_eq!(u64::from(count), expected);
            }
            Step::Kernel(count) => {
                for _ in 0..count {
                    prop_assert_eq!(sink.take(), on_the_way.pop_front());
                    put += u64::from(source.put(put));
                }
            }
        }
        prop_assert_eq!(producer.unread() as usize, on_the_way.len());
        prop_assert_eq!(u64::from(source.used()), put - read);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 2000 }))]

    #[test]
    fn no_order_of_steps_loses_or_doubles_an_entry(start in start(), steps in steps()) {
        check(start, &steps)?;
    }
}

#[test]
fn both_sides_at_once_lose_nothing() {
    const ENTRIES: u64 = if cfg!(miri) { 100 } else { 100_000 };
    let (sink, ring) = Kernel::<Descriptor>::new(u32::MAX - 50);
    let mut producer = Producer::new(ring);
    let (source, ring) = Kernel::<u64>::new(u32::MAX - 50);
    let mut consumer = Consumer::new(ring);
    let kernel = std::thread::spawn(move || {
        let mut passed = 0;
        while passed < ENTRIES {
            match sink.take() {
                Some(entry) => {
                    assert_eq!(entry, descriptor(passed));
                    while !source.put(passed) {
                        std::thread::yield_now();
                    }
                    passed += 1;
                }
                None => std::thread::yield_now(),
            }
        }
    });
    let (mut written, mut read) = (0, 0);
    while read < ENTRIES {
        let batch = (ENTRIES - written).min(3);
        if producer.has_room(batch as u32) {
            (written..written + batch).for_each(|n| producer.write(descriptor(n)));
            producer.publish();
            written += batch;
        }
        let count = consumer.read(5, |entry| {
            assert_eq!(entry, read);
            read += 1;
        });
        if count == 0 {
            std::thread::yield_now();
        }
    }
    kernel.join().unwrap();
    assert_eq!((written, producer.unread()), (ENTRIES, 0));
}

#[test]
fn both_ends_go_on_where_the_ring_stands() {
    let (kernel, ring) = Kernel::new(u32::MAX);
    (0..3).for_each(|entry: u64| assert!(kernel.put(entry)));
    let mut read = Vec::new();
    assert_eq!(Consumer::new(ring).read(u32::MAX, |entry| read.push(entry)), 3);
    assert_eq!(read, [0, 1, 2]);
    let (kernel, ring) = Kernel::new(7);
    (0..3).for_each(|entry: u64| assert!(kernel.put(entry)));
    let mut producer = Producer::new(ring);
    assert!(producer.has_room(SIZE - 3) && !producer.has_room(SIZE - 2));
    assert_eq!(producer.unread(), 3);
}

#[test]
fn the_kernel_says_whether_it_wants_to_be_called() {
    let (kernel, ring) = Kernel::<u64>::new(0);
    let producer = Producer::new(ring);
    for (flags, expected) in [(0, false), (1, true), (2, false), (3, true)] {
        kernel.flags[0].store(flags, Ordering::Relaxed);
        assert_eq!(producer.needs_wakeup(), expected);
    }
}

#[test]
#[should_panic(expected = "overwritten")]
fn to_write_over_what_nobody_has_read_is_a_mistake() {
    let (_kernel, ring) = Kernel::new(u32::MAX - 2);
    let mut producer = Producer::new(ring);
    (0..=u64::from(SIZE)).for_each(|entry| producer.write(entry));
    producer.publish();
}
