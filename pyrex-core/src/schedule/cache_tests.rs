//! What the cache promises: prefixes found again, windows that give back, blocks that only their holder writes.

use super::*;
use crate::schedule::prefix::Digest;
use crate::schedule::sequence::ImageSpan;
use crate::schedule::simulation::{Groups, Storage, check_holders, digests, id, sequence};

const BLOCK: usize = 4;

impl BlockCache {
    /// How many hold each block of a group.
    pub(in crate::schedule) fn holders(&self, group: usize) -> Vec<u32> {
        let blocks = &self.groups[group].blocks;
        (0..blocks.num_blocks() as u32).map(|block| blocks.num_holders(block)).collect()
    }

    fn num_free(&self) -> Vec<usize> {
        self.counts().iter().map(|counts| counts.num_free).collect()
    }
}

fn cache(groups: Groups<'_>) -> BlockCache {
    BlockCache::new(groups, BLOCK, digests(), true)
}

fn prompt(token_ids: impl IntoIterator<Item = u32>) -> Sequence {
    sequence(id(0, 0, 0), token_ids.into_iter().collect())
}

/// Computes a sequence up to `end`, as one step.
fn compute(cache: &mut BlockCache, sequence: &mut Sequence, end: usize) -> Vec<BlockCopy> {
    let mut copies = Vec::new();
    assert!(cache.reserve(sequence, end, &mut copies), "no room up to {end}");
    sequence.num_computed_tokens = end;
    cache.commit(sequence);
    copies
}

/// Begins a sequence, computes it to its end, and gives back all it held; how many tokens it adopted.
fn serve(cache: &mut BlockCache, sequence: &mut Sequence) -> usize {
    let num_adopted = cache.adopt(sequence);
    for end in num_adopted + 1..=sequence.token_ids.len() {
        compute(cache, sequence, end);
    }
    cache.release(sequence);
    num_adopted
}

/// How many tokens a sequence would adopt; nothing changes but the order of the free blocks.
fn would_adopt(cache: &mut BlockCache, mut sequence: Sequence) -> usize {
    let num_adopted = cache.adopt(&mut sequence);
    cache.release(&mut sequence);
    num_adopted
}

#[test]
fn a_prompt_seen_before_is_adopted_in_full_blocks_but_for_its_last_token() {
    for len in 1..=13 {
        let mut cache = cache(&[(None, 8), (Some(5), 8)]);
        assert_eq!(serve(&mut cache, &mut prompt(0..13)), 0, "nothing is remembered at first");
        let mut again = prompt(0..len);
        assert_eq!(cache.adopt(&mut again), (len as usize - 1) / 4 * 4, "of {len} tokens");
        assert_eq!(again.num_pending_tokens(), 1 + (len as usize - 1) % 4);
    }
}

#[test]
fn another_salt_image_place_or_earlier_token_is_a_miss() {
    let image = |digest, start: usize| ImageSpan { tokens: start..start + 5, digest: Digest(digest) };
    let sequence = |root, first, images| {
        let token_ids = std::iter::once(first).chain(1..17).collect();
        Sequence::new(id(0, 0, 0), token_ids, images, Digest(root))
    };
    let mut cache = cache(&[(None, 32)]);
    serve(&mut cache, &mut sequence(0, 0, vec![image(1, 6)]));
    let mut adopts = |root, first, images| would_adopt(&mut cache, sequence(root, first, images));
    assert_eq!(adopts(0, 0, vec![image(1, 6)]), 16);
    assert_eq!(adopts(1, 0, vec![image(1, 6)]), 0, "another salt");
    assert_eq!(adopts(0, 9, vec![image(1, 6)]), 0, "another first token");
    assert_eq!(adopts(0, 0, vec![image(2, 6)]), 4, "another image from the seventh token on");
    assert_eq!(adopts(0, 0, vec![image(1, 5)]), 4, "the same image one token earlier");
    assert_eq!(adopts(0, 0, vec![]), 4, "no image");
    assert_eq!(adopts(0, 0, vec![image(1, 6), image(1, 11)]), 8, "a second image");
}

#[test]
fn an_image_of_one_token_counts_wherever_it_lies() {
    for start in 0..16 {
        let image = |digest| vec![ImageSpan { tokens: start..start + 1, digest: Digest(digest) }];
        let sequence = |digest| Sequence::new(id(0, 0, 0), (0..17).collect(), image(digest), Digest(0));
        let mut cache = cache(&[(None, 32)]);
        serve(&mut cache, &mut sequence(1));
        assert_eq!(would_adopt(&mut cache, sequence(1)), 16);
        assert_eq!(would_adopt(&mut cache, sequence(2)), start / BLOCK * BLOCK);
    }
}

#[test]
fn a_cache_that_remembers_nothing_adopts_nothing() {
    let mut cache = BlockCache::new(&[(None, 8)], BLOCK, digests(), false);
    assert_eq!(serve(&mut cache, &mut prompt(0..13)), 0);
    assert_eq!(serve(&mut cache, &mut prompt(0..13)), 0);
    assert_eq!(cache.counts()[0], BlockCounts { num_blocks: 8, num_free: 8, num_cached: 0 });
}

#[test]
fn an_empty_prompt_adopts_nothing() {
    assert_eq!(cache(&[(None, 8)]).adopt(&mut prompt([])), 0);
}

#[test]
fn a_prefix_is_as_long_as_every_group_still_needs_and_remembers_it() {
    // The window of 5 needs the last block of a prefix, and has room to remember three blocks of 32 tokens.
    let mut cache = cache(&[(None, 16), (Some(5), 3)]);
    serve(&mut cache, &mut prompt(0..32));
    assert_eq!(cache.counts()[1].num_cached, 3);
    let mut adopts = |len| would_adopt(&mut cache, prompt((0..len).chain([100])));
    assert_eq!(adopts(32), 32);
    assert_eq!(adopts(31), 28);
    assert_eq!(adopts(27), 24, "the last of the three");
    assert_eq!(adopts(23), 0, "the full layers know 20 tokens, the windows forgot them");
}

#[test]
fn an_adopted_prefix_holds_what_the_windows_see_and_nothing_else() {
    let mut cache = cache(&[(None, 16), (Some(4), 16), (Some(5), 16), (Some(6), 16), (Some(1), 16)]);
    serve(&mut cache, &mut prompt(0..32));
    let mut again = prompt(0..25);
    assert_eq!(cache.adopt(&mut again), 24);
    // The query at 24 sees 21.., 20.., 19.. and itself.
    assert_eq!(again.lease.held().map(<[u32]>::len).collect::<Vec<_>>(), [6, 1, 1, 2, 0]);
    assert_eq!(again.block_tables().iter().map(|table| table.len()).collect::<Vec<_>>(), [6; 5]);
    check_holders(&cache, [&again]);
}

/// How many blocks of two prompts are remembered while others take all blocks one by one.
fn forgetting(cache: &mut BlockCache, prompts: [&[u32]; 2]) -> Vec<[usize; 2]> {
    let num_remembered = |cache: &BlockCache, token_ids: &[u32]| {
        cache.longest_prefix(&mut prompt(token_ids.iter().copied().chain([0])))
    };
    let mut forgotten = Vec::new();
    let mut holders = Vec::new();
    while cache.num_free() != [0] {
        let mut one = prompt([1]);
        cache.adopt(&mut one);
        compute(cache, &mut one, 1);
        holders.push(one);
        forgotten.push(prompts.map(|token_ids| num_remembered(cache, token_ids)));
    }
    holders.iter_mut().for_each(|one| cache.release(one));
    forgotten
}

#[test]
fn the_least_recently_used_is_forgotten_first_and_of_it_the_end() {
    let (old, new): (Vec<u32>, Vec<u32>) = ((0..8).collect(), (100..112).collect());
    let mut cache = cache(&[(None, 6)]);
    let serve_both = |cache: &mut BlockCache| {
        serve(cache, &mut prompt(old.clone()));
        serve(cache, &mut prompt(new.clone()));
        // Its block is not full: nobody can find it again.
        serve(cache, &mut prompt([7]));
    };
    serve_both(&mut cache);
    let expected = [[2, 3], [1, 3], [0, 3], [0, 2], [0, 1], [0, 0]];
    assert_eq!(forgetting(&mut cache, [&old, &new]), expected, "the block that is worth nothing goes first");
    serve_both(&mut cache);
    would_adopt(&mut cache, prompt(old.iter().copied().chain([0])));
    let expected = [[2, 3], [2, 2], [2, 1], [2, 0], [1, 0], [0, 0]];
    assert_eq!(forgetting(&mut cache, [&old, &new]), expected, "adopting is using");
}

#[test]
fn two_that_compute_the_same_are_remembered_once() {
    let mut cache = cache(&[(None, 8)]);
    let mut both = [prompt(0..8), prompt(0..8)];
    for sequence in &mut both {
        cache.adopt(sequence);
    }
    for sequence in &mut both {
        compute(&mut cache, sequence, 8);
    }
    assert_eq!(cache.counts()[0], BlockCounts { num_blocks: 8, num_free: 4, num_cached: 2 });
    both.iter_mut().for_each(|sequence| cache.release(sequence));
    assert_eq!(would_adopt(&mut cache, prompt(0..9)), 8);
}

/// What a sequence must hold of a window when `next` is the next position and slots up to `end` are reserved.
fn blocks_in_sight(window: usize, next: usize, end: usize, block_size: usize) -> Vec<usize> {
    let sees = |position: &usize| *position >= next || next - position < window;
    (0..end.div_ceil(block_size))
        .filter(|idx| (idx * block_size..(idx + 1) * block_size).any(|position| sees(&position)))
        .collect()
}

#[test]
fn a_window_gives_back_exactly_the_blocks_that_no_later_query_sees() {
    for (window, chunk) in (1..=50).flat_map(|window| (1..=40).map(move |chunk| (window, chunk))) {
        let (block_size, num_tokens) = (if chunk % 2 == 0 { 4 } else { 16 }, 120);
        let most = most_blocks(Some(window), num_tokens, chunk, block_size);
        // Of a window of one token nothing is ever needed: all of the prompt would count as remembered.
        let remembers = window > 1 && chunk % 3 == 0;
        let mut cache = BlockCache::new(&[(Some(window), most)], block_size, digests(), remembers);
        let mut sequence = prompt(0..num_tokens as u32);
        cache.adopt(&mut sequence);
        let mut most_held = 0;
        while sequence.num_pending_tokens() > 0 {
            let (start, end) = (sequence.num_computed_tokens, sequence.num_computed_tokens + chunk);
            let end = end.min(num_tokens);
            assert!(cache.reserve(&mut sequence, end, &mut Vec::new()), "more than {most} blocks");
            let table = &sequence.lease.tables[0];
            let held: Vec<usize> = (table.num_passed..table.blocks.len()).collect();
            assert_eq!(held, blocks_in_sight(window, start, end, block_size));
            most_held = most_held.max(held.len());
            sequence.num_computed_tokens = end;
            cache.commit(&mut sequence);
            let table = &sequence.lease.tables[0];
            let held: Vec<usize> = (table.num_passed..table.blocks.len()).collect();
            assert_eq!(held, blocks_in_sight(window, end, end, block_size), "window {window}, chunk {chunk}");
            assert_eq!(cache.num_free(), [most - held.len()]);
        }
        assert!(
            most_held <= most && most <= most_held + 2,
            "{most} blocks for {most_held}, window {window}, chunk {chunk}"
        );
    }
}

#[test]
fn a_block_is_given_back_when_the_window_has_passed_its_last_token() {
    for window in [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1] {
        let mut cache = cache(&[(Some(window), 16)]);
        let mut sequence = prompt(0..40);
        cache.adopt(&mut sequence);
        // The query at position 3 + window is the first that does not see position 3, the last of the first block.
        compute(&mut cache, &mut sequence, 2 + window);
        assert_eq!(sequence.lease.tables[0].num_passed, 0, "window {window}");
        compute(&mut cache, &mut sequence, 3 + window);
        assert_eq!(sequence.lease.tables[0].num_passed, 1, "window {window}");
        assert_eq!(cache.holders(0).iter().sum::<u32>() as usize, (3 + window).div_ceil(BLOCK) - 1);
    }
}

#[test]
fn no_sequence_of_any_length_holds_more_than_most_blocks() {
    for (window, chunk, num_tokens) in (1..20usize)
        .flat_map(|window| (1..20).map(move |chunk| (window, chunk)))
        .flat_map(|(window, chunk)| (1..40).map(move |num_tokens| (window, chunk, num_tokens)))
    {
        let spans = (0..num_tokens).flat_map(|start| {
            (1..=chunk.min(num_tokens - start))
                .map(move |len| blocks_in_sight(window, start, start + len, BLOCK))
        });
        let most_held = spans.map(|held| held.len()).max().unwrap_or(0);
        let most = most_blocks(Some(window), num_tokens, chunk, BLOCK);
        assert!(most_held <= most, "{most} for window {window}, chunk {chunk}, {num_tokens} tokens");
        assert_eq!(most_blocks(None, num_tokens, chunk, BLOCK), num_tokens.div_ceil(BLOCK));
    }
    assert_eq!(most_blocks(Some(usize::MAX), 40, 8, BLOCK), 10);
}

/// A parent computed up to `len` with two children, each going on with tokens of its own in the order given.
fn check_forks(len: usize, order: [usize; 3]) {
    let groups = [(None, 32), (Some(3), 32)];
    let (mut cache, mut storage) = (cache(&groups), Storage::new(&groups, BLOCK));
    let mut parent = prompt(0..len as u32);
    cache.adopt(&mut parent);
    compute(&mut cache, &mut parent, len);
    storage.run(&[(&parent, 0..len, &[])]);
    let [first, second] = [1, 2].map(|index| parent.fork(id(0, 0, index), cache.share(&parent)));
    let mut family = [parent, first, second];
    for (end, member) in (len + 1..len + 7).flat_map(|end| order.map(|member| (end, member))) {
        let sequence = &mut family[member];
        sequence.token_ids.push(100 * (1 + member as u32));
        let mut copies = Vec::new();
        assert!(cache.reserve(sequence, end, &mut copies));
        storage.run(&[(&*sequence, end - 1..end, &copies)]);
        let is_shared = end == len + 1 && !len.is_multiple_of(BLOCK) && member != order[2];
        assert_eq!(copies.len(), if is_shared { 2 } else { 0 }, "the last holder needs no copy");
        sequence.num_computed_tokens = end;
        cache.commit(sequence);
        check_holders(&cache, &family);
        family
            .iter()
            .for_each(|one| storage.check_reads(one, one.num_computed_tokens, one.num_computed_tokens));
    }
    family.iter_mut().for_each(|sequence| cache.release(sequence));
    assert_eq!(cache.num_free(), [32, 32]);
}

#[test]
fn after_a_fork_nobody_writes_what_another_reads() {
    for len in 1..=9 {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            check_forks(len, order);
        }
    }
}

#[test]
fn a_fork_at_the_border_of_a_block_copies_nothing_and_writes_its_own() {
    let mut cache = cache(&[(None, 8)]);
    let mut parent = prompt(0..8);
    cache.adopt(&mut parent);
    compute(&mut cache, &mut parent, 8);
    let mut child = parent.fork(id(0, 0, 1), cache.share(&parent));
    for sequence in [&mut parent, &mut child] {
        sequence.token_ids.push(9);
        assert_eq!(compute(&mut cache, sequence, 9), []);
    }
    let (parent, child) = (parent.block_tables()[0].to_vec(), child.block_tables()[0].to_vec());
    assert_eq!(parent[..2], child[..2]);
    assert_ne!(parent[2], child[2]);
}

#[test]
fn a_fork_does_not_share_blocks_that_are_only_reserved() {
    let mut cache = cache(&[(None, 8)]);
    let mut parent = prompt(0..14);
    cache.adopt(&mut parent);
    compute(&mut cache, &mut parent, 5);
    assert!(cache.reserve(&mut parent, 14, &mut Vec::new()));
    let child = parent.fork(id(0, 0, 1), cache.share(&parent));
    assert_eq!(child.block_tables()[0], &parent.block_tables()[0][..2]);
    check_holders(&cache, [&parent, &child]);
}

#[test]
fn a_reservation_takes_all_it_needs_or_nothing() {
    let mut cache = cache(&[(None, 8), (Some(100), 2)]);
    let mut parent = prompt(0..30);
    cache.adopt(&mut parent);
    compute(&mut cache, &mut parent, 3);
    let mut child = parent.fork(id(0, 0, 1), cache.share(&parent));
    let (tables, mut copies) = (child.lease.tables[0].blocks.clone(), Vec::new());
    assert!(!cache.reserve(&mut child, 5, &mut copies), "the second group needs a copy and one more");
    assert_eq!((copies.len(), cache.num_free()), (0, vec![7, 1]));
    assert_eq!(child.lease.tables[0].blocks, tables);
    assert!(cache.reserve(&mut child, 4, &mut copies));
    assert_eq!((copies.len(), cache.num_free()), (2, vec![6, 0]));
}

#[test]
fn reserving_again_takes_nothing_more() {
    let mut cache = cache(&[(None, 8)]);
    let mut sequence = prompt(0..20);
    cache.adopt(&mut sequence);
    for end in [13, 13, 7, 16] {
        assert!(cache.reserve(&mut sequence, end, &mut Vec::new()));
        assert_eq!(cache.num_free(), [4]);
    }
}

#[test]
fn there_is_room_for_what_is_missing_and_what_is_to_spare() {
    let mut cache = cache(&[(None, 6), (Some(4), 8)]);
    let mut sequence = prompt(0..24);
    cache.adopt(&mut sequence);
    assert!(cache.has_room(&sequence, 4, 0));
    assert!(!cache.has_room(&sequence, 4, 1), "the full layers need all six blocks");
    compute(&mut cache, &mut sequence, 8);
    assert!(cache.has_room(&sequence, 4, 0), "what it holds counts");
    let mut other = prompt(100..101);
    cache.adopt(&mut other);
    compute(&mut cache, &mut other, 1);
    assert!(!cache.has_room(&sequence, 4, 0));
}

#[test]
fn a_released_sequence_holds_nothing_and_begins_from_nothing() {
    let mut cache = cache(&[(None, 8), (Some(3), 8)]);
    let mut sequence = prompt(0..20);
    cache.adopt(&mut sequence);
    compute(&mut cache, &mut sequence, 18);
    cache.release(&mut sequence);
    assert!(!sequence.is_running());
    assert_eq!((sequence.num_computed_tokens, cache.num_free()), (0, vec![8, 8]));
    assert_eq!(cache.adopt(&mut sequence), 16, "its own prefix is remembered");
}
