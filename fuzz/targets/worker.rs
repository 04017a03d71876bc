//! Any sequence of frames through a whole worker: parse, decide, rewrite, transmit, count.
//!
//! Input: a head of seven bytes (buffer size, transmit limit, batch, start, variant of services and of next hops),
//! then steps of one byte and what each reads.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use shunt_dataplane::conntrack::Seconds;
use shunt_dataplane::packet::{self, ethernet, steering};
use shunt_dataplane::port::NicIndex;
use shunt_dataplane::table::Compiler;
use shunt_fuzz::bytes::Bytes;
use shunt_fuzz::setting::{self, Variant};
use shunt_fuzz::world::{Size, World};
use shunt_fuzz::{frames, inet};

/// Steps of an input at most, so that none takes long.
const STEPS_MAX: usize = 64;
/// Clients of a burst at most.
const BURST_MAX: u8 = 13;
/// Buffers hold any headroom and the headers behind it, as they do in AF_XDP.
const CHUNKS: [usize; 4] = [2048, 384, 512, 1024];
/// Headroom that the steering program makes.
const LEADS: [u8; 4] = [0, 20, 40, 44];
/// Seconds of a step: around the idle times and their 64ths, and around the end of what an entry's clock can tell.
const PAUSES: [u32; 8] = [0, 1, 2, 5, 10, 71, 132, 1 << 20];

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes::new(input);
    let size = Size {
        chunk: bytes.pick(&CHUNKS),
        transmit_limit: bytes.pick(&[48, 4, 1, 8]),
        batch: bytes.pick(&[64, 1, 5]),
    };
    let start = Seconds(u32::from(bytes.number()) << 8);
    let variant = Variant { services: bytes.byte(), hops: bytes.byte() };
    let mut compiler = World::compiler();
    let Ok(table) = compiler.compile(&variant.snapshot()) else { return };
    let (hops, nics) = (setting::hops(&table, variant.hops), setting::nics(variant.hops));
    let mut world = World::new(size, start, table, hops, nics);
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        step(&mut world, &mut compiler, &mut bytes);
    }
    world.end();
});

fn step(world: &mut World, compiler: &mut Compiler, bytes: &mut Bytes<'_>) {
    match bytes.byte() % 9 {
        0..=2 => {
            let frame = frames::template(bytes, 0);
            arrive(world, bytes, frame);
        }
        3 => {
            let length = usize::from(bytes.byte());
            let frame = bytes.take(length).to_vec();
            arrive(world, bytes, frame);
        }
        4 => world.sleep(bytes.pick(&PAUSES)),
        5 => {
            let variant = Variant { services: bytes.byte(), hops: bytes.byte() };
            let compiled = compiler.compile(&variant.snapshot());
            let table = compiled.map_or_else(|_| world.table(), Arc::new);
            let (hops, nics) = (setting::hops(&table, variant.hops), setting::nics(variant.hops));
            world.publish(table, hops, nics);
        }
        6 => answer(world, bytes),
        7 => complain(world, bytes),
        _ => burst(world, bytes),
    }
}

/// The same of many clients, so that tables fill up, three times: once to be entered, once to be confirmed, once to be
/// followed.
fn burst(world: &mut World, bytes: &mut Bytes<'_>) {
    let clients = bytes.byte() % BURST_MAX;
    let each = *bytes;
    for other in (0..clients).chain(0..clients).chain(0..clients) {
        let frame = frames::template(&mut each.clone(), other);
        world.arrive(NicIndex(0), &[], &frame);
    }
    frames::template(bytes, 0);
}

/// A frame arrives after up to three of its bytes were changed.
fn arrive(world: &mut World, bytes: &mut Bytes<'_>, mut frame: Vec<u8>) {
    let how = bytes.byte();
    for _ in 0..how & 3 {
        let (at, value) = (usize::from(bytes.byte()), bytes.byte());
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
    }
    if how & 4 == 0 {
        inet::mend(&mut frame);
    }
    let nic = NicIndex(how >> 3 & 3);
    world.arrive(nic, &steering::lead(LEADS[usize::from(how >> 5 & 3)]), &frame);
}

/// Whoever the last frame went to answers it.
fn answer(world: &mut World, bytes: &mut Bytes<'_>) {
    world.turn();
    let Some(last) = world.last().cloned() else { return };
    if let Ok(parsed) = packet::parse(&last.bytes, last.bytes.len()) {
        let (at, length) = (usize::from(parsed.ip_offset), usize::from(parsed.header_length));
        let mut frame = frames::reversed(&last.bytes, at, length);
        if let Some(flags) = frame.get_mut(at + length + 13) {
            *flags ^= bytes.byte();
        }
        arrive(world, bytes, frame);
    }
}

/// A router on the way of the last frame says that it went no further.
fn complain(world: &mut World, bytes: &mut Bytes<'_>) {
    world.turn();
    let Some(last) = world.last().cloned() else { return };
    let Ok(header) = ethernet::parse(&last.bytes) else { return };
    let ip = &last.bytes[header.length..];
    let error = frames::error_about(ip, setting::router(inet::is_v6(ip)), bytes.number());
    let frame = frames::ethernet([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 9], &[], &error);
    arrive(world, bytes, frame);
}
