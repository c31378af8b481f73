//! What scheduling costs: `cargo bench -p pyrex-core --bench schedule`.
//!
//! Every figure is the best of several runs, because other work on the machine only ever makes one slower.

use pyrex_core::schedule::{
    BLOCK_SIZE, BlockAllocator, BlockCache, Digests, Reuse, Scheduler, Sequence, SequenceId, StepLimits,
};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

/// Tokens of a prompt, and the window of half of the layers.
const PROMPT_LEN: u32 = 1000;
const WINDOW: usize = 512;

fn main() {
    println!("{:48} {:>12}", "blocks: take, share, release", format!("{:.0} M/s", block_operations() / 1e6));
    for num_sequences in [16, 64] {
        let name = format!("plan, commit and append, {num_sequences} decoding");
        println!("{name:48} {:>12}", format!("{:.1} us", 1e6 * step(num_sequences)));
    }
    for (name, seconds) in [("digests and all", adoption()), ("known digests", adoption_again())] {
        let name = format!("adopt a prefix of {PROMPT_LEN} tokens, {name}");
        println!("{name:48} {:>12}", format!("{:.1} us", 1e6 * seconds));
    }
}

/// Seconds of the fastest of `runs`.
fn best<T>(runs: usize, mut f: impl FnMut() -> T) -> f64 {
    (0..runs)
        .map(|_| {
            let start = Instant::now();
            black_box(f());
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

/// Operations per second on 4096 blocks of which half are held, in turns at the front, at the back and in the middle.
fn block_operations() -> f64 {
    const ROUNDS: usize = 250_000;
    let mut blocks = BlockAllocator::new(4096);
    let mut held: VecDeque<u32> = (0..2048).filter_map(|_| blocks.take()).collect();
    let mut random = 1usize;
    let mut round = || {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        held.extend(blocks.take());
        let shared = (random >> 33) % 4096;
        blocks.share(shared as u32);
        blocks.release(shared as u32, Reuse::Last);
        let reuse = if random >> 63 == 0 { Reuse::First } else { Reuse::Last };
        held.pop_front().into_iter().for_each(|block| blocks.release(block, reuse));
    };
    4.0 * ROUNDS as f64 / best(20, || (0..ROUNDS).for_each(|_| round()))
}

fn digests() -> Digests {
    Digests::new([7; 32])
}

fn cache(num_blocks: usize) -> BlockCache {
    BlockCache::new(&[(None, num_blocks), (Some(WINDOW), num_blocks)], BLOCK_SIZE, digests(), true)
}

/// The prompts of different requests differ from their first token on.
fn prompt(request: u64) -> Sequence {
    let id = SequenceId { priority: Reverse(0), request, index: 0 };
    let token_ids = (0..PROMPT_LEN).map(|position| position + 10_000 * request as u32).collect();
    Sequence::new(id, token_ids, Vec::new(), digests().of(&[b""]))
}

/// Plans, commits, and adds a token to everybody who comes to its end.
fn advance(scheduler: &mut Scheduler) {
    let plan = scheduler.plan();
    scheduler.commit(&plan);
    for chunk in plan.chunks.iter().filter(|chunk| chunk.samples) {
        scheduler.append(chunk.sequence_id, 1);
    }
}

/// Seconds of one step of so many decoding sequences, as the mean of 160 steps.
fn step(num_sequences: u64) -> f64 {
    const STEPS: usize = 10 * BLOCK_SIZE;
    let limits = StepLimits { max_batch_tokens: 2048, max_sequences: num_sequences as usize };
    let mut scheduler = Scheduler::new(limits, cache(512 * num_sequences as usize));
    (0..num_sequences).for_each(|request| scheduler.add(prompt(request)));
    while scheduler.sequences().any(|sequence| sequence.num_pending_tokens() > 1) {
        advance(&mut scheduler);
    }
    best(30, || (0..STEPS).for_each(|_| advance(&mut scheduler))) / STEPS as f64
}

/// A cache that remembers the prompt of request 0.
fn remembering() -> BlockCache {
    let (mut cache, mut sequence) = (cache(128), prompt(0));
    cache.adopt(&mut sequence);
    let has_room = cache.reserve(&mut sequence, PROMPT_LEN as usize, &mut Vec::new());
    assert!(has_room, "the cache has room for one prompt");
    sequence.num_computed_tokens = PROMPT_LEN as usize;
    cache.commit(&mut sequence);
    cache.release(&mut sequence);
    cache
}

/// Adopts and gives back.
fn adopt(cache: &mut BlockCache, sequence: &mut Sequence) {
    let num_adopted = cache.adopt(sequence);
    assert_eq!(num_adopted, PROMPT_LEN as usize / BLOCK_SIZE * BLOCK_SIZE);
    cache.release(sequence);
}

fn adoption() -> f64 {
    let mut cache = remembering();
    best(2000, || adopt(&mut cache, &mut prompt(0)))
}

/// As a sequence that waits for room does at every step.
fn adoption_again() -> f64 {
    let (mut cache, mut sequence) = (remembering(), prompt(0));
    cache.adopt(&mut sequence);
    cache.release(&mut sequence);
    best(2000, || adopt(&mut cache, &mut sequence))
}
