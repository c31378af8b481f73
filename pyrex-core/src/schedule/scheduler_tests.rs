//! What the scheduler promises: who runs, in what order, and who gives way.

use super::*;
use crate::schedule::simulation::{Groups, Simulation, digests, id, sequence};

const BLOCK: usize = 4;

impl Scheduler {
    pub(in crate::schedule) fn cache(&self) -> &BlockCache {
        &self.cache
    }
}

/// One group of layers that forgets nothing; prefixes are remembered.
fn simulation(max_batch_tokens: usize, max_sequences: usize, num_blocks: usize) -> Simulation {
    of_groups((max_batch_tokens, max_sequences), &[(None, num_blocks)])
}

fn of_groups(limits: (usize, usize), groups: Groups<'_>) -> Simulation {
    Simulation::new(limits, groups, BLOCK, true)
}

/// The `index`th prompt of so many tokens: no two begin alike.
fn prompt(index: u32, len: u32) -> impl Iterator<Item = u32> {
    (0..len).map(move |position| 1000 * (index + 1) + position)
}

/// Requests 0, 1, … of one priority with prompts of so many tokens.
fn add(simulation: &mut Simulation, lens: &[u32]) -> Vec<SequenceId> {
    let ids: Vec<_> = (0..lens.len() as u64).map(|request| id(0, request, 0)).collect();
    for ((id, len), index) in ids.iter().zip(lens).zip(0..) {
        simulation.add(*id, prompt(index, *len));
    }
    ids
}

/// Who is planned, and how many tokens of each.
fn planned(plan: &Plan) -> Vec<(SequenceId, usize)> {
    plan.chunks.iter().map(|chunk| (chunk.sequence_id, chunk.positions.len())).collect()
}

fn sequence_of(simulation: &Simulation, id: SequenceId) -> &Sequence {
    simulation.scheduler.get(id).expect("it was added, and not removed")
}

fn running(simulation: &Simulation) -> Vec<SequenceId> {
    simulation.running().collect()
}

#[test]
fn nothing_is_planned_for_nobody() {
    let mut simulation = simulation(8, 4, 8);
    assert_eq!(simulation.step(), Plan::default());
    assert_eq!(simulation.plan_alone(id(0, 0, 0)), Plan::default());
}

#[test]
fn chunks_cover_each_position_once_whatever_the_budget() {
    for budget in 1..=40 {
        let mut simulation = of_groups((budget, 3), &[(None, 64), (Some(6), 64)]);
        let ids = add(&mut simulation, &[37, 1, 18]);
        let mut next = [0, 0, 0];
        for _ in 0..100 {
            for chunk in simulation.step().chunks {
                let which = chunk.sequence_id.request as usize;
                assert_eq!(chunk.positions.start, next[which]);
                next[which] = chunk.positions.end;
                assert_eq!(chunk.samples, next[which] == [37, 1, 18][which], "budget {budget}");
            }
        }
        assert_eq!(next, [37, 1, 18], "budget {budget}");
        assert!(ids.iter().all(|id| sequence_of(&simulation, *id).num_pending_tokens() == 0));
    }
}

#[test]
fn decodes_go_before_prompts_and_prompts_share_what_is_left() {
    let mut simulation = simulation(10, 8, 64);
    let [a, b, c] = add(&mut simulation, &[30, 3, 9])[..] else { panic!("three were added") };
    assert_eq!(planned(&simulation.step_and_sample()), [(a, 10)]);
    simulation.scheduler.remove(a);
    simulation.add(a, prompt(0, 25));
    assert_eq!(planned(&simulation.step_and_sample()), [(a, 10)], "eight are remembered");
    assert_eq!(planned(&simulation.step_and_sample()), [(a, 7), (b, 3)]);
    simulation.add(id(0, 0, 1), prompt(7, 20));
    let early = id(0, 0, 1);
    assert_eq!(planned(&simulation.step_and_sample()), [(a, 1), (b, 1), (early, 8)]);
    assert_eq!(planned(&simulation.step_and_sample()), [(a, 1), (b, 1), (early, 8)]);
    assert_eq!(planned(&simulation.step_and_sample()), [(a, 1), (b, 1), (early, 4), (c, 4)]);
}

#[test]
fn a_step_takes_no_more_sequences_than_allowed() {
    let mut simulation = simulation(64, 2, 64);
    let ids = add(&mut simulation, &[3, 3, 3]);
    assert_eq!(planned(&simulation.step_and_sample()), [(ids[0], 3), (ids[1], 3)]);
    assert_eq!(planned(&simulation.step_and_sample()), [(ids[0], 1), (ids[1], 1)]);
    simulation.scheduler.pause(ids[0], true);
    assert_eq!(planned(&simulation.step_and_sample()), [(ids[1], 1), (ids[2], 3)], "the paused do not count");
    simulation.scheduler.pause(ids[0], false);
    assert_eq!(planned(&simulation.step_and_sample()), [(ids[0], 1), (ids[1], 1)]);
}

#[test]
fn limits_of_zero_count_as_one() {
    let cache = BlockCache::new(&[(None, 8)], BLOCK, digests(), true);
    let limits = StepLimits { max_batch_tokens: 0, max_sequences: 0 };
    let mut scheduler = Scheduler::new(limits, cache);
    scheduler.add(sequence(id(0, 0, 0), vec![1, 2]));
    assert_eq!(planned(&scheduler.plan()), [(id(0, 0, 0), 1)]);
}

#[test]
fn nobody_begins_before_one_that_came_earlier() {
    let mut simulation = simulation(64, 8, 8);
    // The second needs seven blocks where five are free; the third would fit.
    let [a, b, c] = add(&mut simulation, &[10, 25, 2])[..] else { panic!("three were added") };
    assert_eq!(planned(&simulation.step_and_sample()), [(a, 10)]);
    assert_eq!(planned(&simulation.step_and_sample()), [(a, 1)]);
    simulation.scheduler.remove(a);
    assert_eq!(planned(&simulation.step_and_sample()), [(b, 25)]);
    assert_eq!(running(&simulation), [b]);
    simulation.scheduler.remove(b);
    assert_eq!(planned(&simulation.step_and_sample()), [(c, 2)]);
}

#[test]
fn one_begins_beside_others_only_with_a_block_to_spare_for_each() {
    for (num_blocks, begins) in [(4, false), (5, true)] {
        let mut simulation = simulation(64, 8, num_blocks);
        let [a, b] = add(&mut simulation, &[8, 8])[..] else { panic!("two were added") };
        let expected = if begins { vec![(a, 8), (b, 8)] } else { vec![(a, 8)] };
        assert_eq!(planned(&simulation.step_and_sample()), expected, "{num_blocks} blocks");
    }
}

#[test]
fn who_is_alone_begins_though_not_all_of_it_has_room() {
    let mut simulation = simulation(8, 8, 3);
    let a = add(&mut simulation, &[20])[0];
    assert_eq!(planned(&simulation.step_and_sample()), [(a, 8)]);
    assert_eq!(simulation.step_and_sample(), Plan::default(), "sixteen tokens have no room");
}

#[test]
fn nobody_begins_when_the_budget_is_spent() {
    let mut simulation = simulation(2, 8, 16);
    let ids = add(&mut simulation, &[1, 1, 5]);
    for _ in 0..3 {
        assert_eq!(planned(&simulation.step_and_sample()), [(ids[0], 1), (ids[1], 1)]);
        assert_eq!(running(&simulation), ids[..2]);
    }
}

#[test]
fn a_higher_priority_goes_first_and_takes_from_lower() {
    let mut simulation = simulation(64, 8, 8);
    let (low, high) = (id(-1, 0, 0), id(1, 9, 0));
    simulation.add(low, prompt(0, 14));
    simulation.step_and_sample();
    simulation.add(high, prompt(1, 21));
    assert_eq!(planned(&simulation.step_and_sample()), [(high, 21)]);
    assert_eq!((running(&simulation), simulation.scheduler.counts().preemptions), (vec![high], 1));
    assert_eq!(planned(&simulation.step_and_sample()), [(high, 1)], "the lower waits");
    simulation.scheduler.remove(high);
    // All 15 tokens, the generated one among them; what the other has not taken is remembered.
    assert_eq!(planned(&simulation.step_and_sample()), [(low, 7)]);
    assert_eq!(sequence_of(&simulation, low).num_computed_tokens, 15);
}

#[test]
fn a_higher_priority_with_room_beside_the_lower_takes_nothing() {
    let mut simulation = simulation(64, 8, 8);
    simulation.add(id(0, 0, 0), prompt(0, 6));
    simulation.step_and_sample();
    simulation.add(id(1, 1, 0), prompt(1, 6));
    assert_eq!(planned(&simulation.step_and_sample()), [(id(0, 0, 0), 1), (id(1, 1, 0), 6)]);
    assert_eq!(simulation.scheduler.counts().preemptions, 0);
}

#[test]
fn a_sequence_for_which_all_others_gave_way_begins_at_once() {
    // Both lower ones go, and nothing must be spared for them any more.
    let mut simulation = simulation(64, 8, 6);
    let high = id(1, 9, 0);
    add(&mut simulation, &[3, 3]);
    simulation.step_and_sample();
    simulation.add(high, prompt(5, 24));
    assert_eq!(planned(&simulation.step_and_sample()), [(high, 24)]);
}

#[test]
fn one_that_comes_later_takes_nothing_from_its_equals() {
    let mut simulation = simulation(64, 8, 6);
    let [a, b] = add(&mut simulation, &[14, 20])[..] else { panic!("two were added") };
    simulation.step_and_sample();
    assert_eq!((planned(&simulation.step_and_sample()), running(&simulation)), (vec![(a, 1)], vec![a]));
    simulation.scheduler.remove(a);
    assert_eq!(planned(&simulation.step_and_sample()), [(b, 20)]);
}

#[test]
fn r25_preempted_sequences_come_back_in_their_old_place() {
    let mut simulation = simulation(64, 8, 9);
    let [a, b, c] = add(&mut simulation, &[8, 8, 7])[..] else { panic!("three were added") };
    assert_eq!(planned(&simulation.step_and_sample()), [(a, 8), (b, 8), (c, 7)]);
    // A newcomer that would fit waits behind those that gave way.
    let late = id(0, 7, 0);
    simulation.add(late, prompt(7, 1));
    let (mut began, mut gave_way) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        let before = running(&simulation);
        let plan = simulation.step_and_sample();
        let after = running(&simulation);
        gave_way.extend(before.iter().filter(|id| !after.contains(id)).copied());
        began.extend(after.iter().filter(|id| !before.contains(id)).copied());
        for chunk in plan.chunks.iter().filter(|chunk| chunk.positions.end == 24) {
            simulation.scheduler.remove(chunk.sequence_id);
        }
    }
    began.dedup();
    assert_eq!(gave_way[..2], [c, b], "the last gives way first");
    assert_eq!(began, [b, c, late]);
    assert_eq!(simulation.scheduler.sequences().count(), 0, "all came to their end");
}

#[test]
fn who_gave_way_in_this_step_lets_nobody_behind_it_begin() {
    let mut simulation = simulation(64, 8, 7);
    let [a, b] = add(&mut simulation, &[8, 12])[..] else { panic!("two were added") };
    for _ in 0..5 {
        assert_eq!(simulation.step_and_sample().chunks.len(), 2);
    }
    // Now the first needs a block of the second's. The newcomer would fit into what is left of them.
    simulation.add(id(0, 7, 0), prompt(7, 1));
    assert_eq!(running(&simulation), [a, b]);
    assert_eq!(planned(&simulation.step_and_sample()), [(a, 1)]);
    assert_eq!(running(&simulation), [a]);
}

#[test]
fn a_higher_priority_begins_in_the_step_in_which_decodes_run_out_of_blocks() {
    let mut simulation = simulation(64, 8, 4);
    let [a, b] = add(&mut simulation, &[7, 4])[..] else { panic!("two were added") };
    simulation.step_and_sample();
    simulation.step_and_sample();
    assert_eq!(running(&simulation), [a, b]);
    // Now the first takes the second's blocks. The newcomer then takes the first's.
    let high = id(1, 9, 0);
    simulation.add(high, prompt(9, 5));
    assert_eq!(planned(&simulation.step_and_sample()), [(high, 5)]);
}

#[test]
fn paused_sequences_are_not_planned_and_give_way_first() {
    let mut simulation = simulation(64, 8, 6);
    let [a, b] = add(&mut simulation, &[7, 7])[..] else { panic!("two were added") };
    simulation.step_and_sample();
    simulation.scheduler.pause(a, true);
    assert_eq!(planned(&simulation.step_and_sample()), [(b, 1)]);
    assert!(simulation.plan_alone(a).chunks.is_empty());
    assert_eq!(running(&simulation), [a, b], "it keeps its blocks while nobody wants them");
    for _ in 0..10 {
        assert_eq!(planned(&simulation.step_and_sample()), [(b, 1)]);
    }
    assert_eq!(running(&simulation), [b], "the paused gave way, though it came first");
    simulation.scheduler.pause(a, false);
    assert_eq!(planned(&simulation.step_and_sample()), [(b, 1)], "it waits for room");
    simulation.scheduler.remove(b);
    assert_eq!(planned(&simulation.step_and_sample())[0].0, a);
}

#[test]
fn of_the_paused_the_last_gives_way_first_and_then_the_last_of_the_others() {
    let mut simulation = simulation(64, 8, 10);
    let [a, b, c, d] = add(&mut simulation, &[4, 4, 4, 2])[..] else { panic!("four were added") };
    simulation.step_and_sample();
    [b, c].into_iter().for_each(|id| simulation.scheduler.pause(id, true));
    let mut ran = vec![running(&simulation)];
    for _ in 0..32 {
        simulation.step_and_sample();
        if ran.last() != Some(&running(&simulation)) {
            ran.push(running(&simulation));
        }
    }
    assert_eq!(ran, [vec![a, b, c, d], vec![a, b, d], vec![a, d], vec![a]]);
}

#[test]
fn one_begins_at_the_cost_of_a_paused_one_of_any_priority() {
    let mut simulation = simulation(64, 8, 6);
    let paused = id(5, 0, 0);
    simulation.add(paused, prompt(0, 20));
    simulation.step_and_sample();
    simulation.scheduler.pause(paused, true);
    simulation.add(id(0, 1, 0), prompt(1, 20));
    assert_eq!(planned(&simulation.step_and_sample()), [(id(0, 1, 0), 20)]);
    assert_eq!(running(&simulation), [id(0, 1, 0)]);
}

#[test]
fn who_could_not_run_anyway_gives_way_to_an_equal_that_begins() {
    let mut simulation = simulation(64, 1, 6);
    let (early, late) = (id(0, 1, 0), id(0, 2, 0));
    simulation.add(late, prompt(0, 20));
    simulation.step_and_sample();
    simulation.add(early, prompt(1, 20));
    assert_eq!(planned(&simulation.step_and_sample()), [(early, 20)]);
}

#[test]
fn who_gives_way_in_a_step_leaves_its_plan() {
    let mut simulation = simulation(64, 8, 5);
    let [a, b] = add(&mut simulation, &[7, 7])[..] else { panic!("two were added") };
    simulation.step_and_sample();
    simulation.step_and_sample();
    simulation.add(id(1, 9, 0), prompt(9, 13));
    let plan = simulation.step_and_sample();
    assert_eq!(planned(&plan), [(id(1, 9, 0), 13)], "both decodes were planned before");
    assert!(simulation.scheduler.get(a).is_some() && simulation.scheduler.get(b).is_some());
}

#[test]
fn a_sequence_alone_is_planned_although_others_come_first() {
    let mut simulation = simulation(8, 8, 16);
    let [a, b] = add(&mut simulation, &[20, 12])[..] else { panic!("two were added") };
    simulation.step_and_sample();
    let plan = simulation.plan_alone(b);
    assert_eq!((planned(&plan), running(&simulation)), (vec![(b, 8)], vec![a, b]));
    simulation.run(&plan);
    simulation.commit(&plan);
}

#[test]
fn a_fork_goes_on_where_its_parent_stands() {
    for len in [7, 8, 9] {
        let mut simulation = of_groups((64, 8), &[(None, 16), (Some(3), 16)]);
        let parent = add(&mut simulation, &[len])[0];
        let child = SequenceId { index: 1, ..parent };
        simulation.step();
        simulation.scheduler.fork(parent, 1);
        simulation.scheduler.append(parent, 1);
        simulation.scheduler.append(child, 2);
        for _ in 0..6 {
            let plan = simulation.step_and_sample();
            assert_eq!(planned(&plan), [(parent, 1), (child, 1)], "after {len} tokens");
        }
    }
}

#[test]
fn a_fork_under_a_known_name_takes_its_place() {
    let mut simulation = simulation(64, 8, 8);
    let parent = add(&mut simulation, &[6])[0];
    simulation.step_and_sample();
    for index in [1, 1, 0] {
        simulation.scheduler.fork(parent, index);
        simulation.check();
    }
    simulation.add(parent, prompt(3, 2));
    simulation.scheduler.remove(SequenceId { index: 1, ..parent });
    simulation.check();
    assert_eq!(simulation.scheduler.blocks()[0].num_free, 8);
}

#[test]
fn a_step_that_failed_is_planned_again() {
    let mut simulation = simulation(6, 8, 16);
    let a = add(&mut simulation, &[20])[0];
    let first = simulation.plan();
    simulation.run(&first);
    simulation.roll_back(&first);
    assert_eq!(planned(&first), [(a, 6)]);
    assert_eq!(simulation.step(), first);
    assert_eq!(simulation.step().chunks[0].positions, 6..12);
}

#[test]
fn whoever_was_to_copy_in_a_step_that_failed_begins_again() {
    let mut simulation = simulation(64, 8, 16);
    let parent = add(&mut simulation, &[6])[0];
    let child = SequenceId { index: 1, ..parent };
    simulation.step();
    simulation.scheduler.fork(parent, 1);
    simulation.scheduler.append(parent, 1);
    simulation.scheduler.append(child, 2);
    let plan = simulation.plan();
    let copies: Vec<usize> = plan.chunks.iter().map(|chunk| chunk.copies.len()).collect();
    assert_eq!((planned(&plan), copies), (vec![(parent, 1), (child, 1)], vec![1, 0]));
    simulation.roll_back(&plan);
    assert_eq!(running(&simulation), [child]);
    assert_eq!(planned(&simulation.step()), [(child, 1), (parent, 3)], "the full block is remembered");
}

#[test]
fn a_sequence_is_never_planned_beyond_what_is_reserved() {
    // Three blocks hold twelve tokens: the thirteenth has nowhere to go.
    let mut simulation = simulation(64, 8, 3);
    let a = add(&mut simulation, &[11])[0];
    for _ in 0..2 {
        assert_eq!(simulation.step_and_sample().chunks.len(), 1);
    }
    assert_eq!(simulation.step_and_sample(), Plan::default());
    assert_eq!(sequence_of(&simulation, a).num_computed_tokens, 12);
}

#[test]
fn a_reclaimed_sequence_keeps_its_place_and_its_tokens() {
    let mut simulation = simulation(64, 8, 16);
    let [a, b] = add(&mut simulation, &[6, 6])[..] else { panic!("two were added") };
    simulation.step_and_sample();
    simulation.scheduler.reclaim(a);
    simulation.check();
    assert_eq!(planned(&simulation.step_and_sample()), [(b, 1), (a, 3)]);
}

#[test]
fn hits_and_preemptions_are_counted() {
    let mut simulation = simulation(64, 8, 8);
    let a = add(&mut simulation, &[10])[0];
    simulation.step_and_sample();
    simulation.add(id(1, 1, 0), prompt(0, 9).chain([5]));
    simulation.step_and_sample();
    let counts = simulation.scheduler.counts();
    assert_eq!(counts, SchedulerCounts { prefix_tokens: 20, prefix_hit_tokens: 8, preemptions: 0 });
    simulation.add(id(2, 2, 0), prompt(2, 21));
    simulation.step_and_sample();
    let counts = simulation.scheduler.counts();
    assert_eq!(counts, SchedulerCounts { prefix_tokens: 41, prefix_hit_tokens: 8, preemptions: 2 });
    assert!(!sequence_of(&simulation, a).is_running());
}

#[test]
fn a_token_that_is_expected_is_planned_and_then_known() {
    let mut simulation = simulation(64, 8, 8);
    let a = add(&mut simulation, &[7])[0];
    simulation.step();
    simulation.scheduler.expect(a);
    let ahead = simulation.plan();
    assert_eq!((planned(&ahead), ahead.chunks[0].positions.clone()), (vec![(a, 1)], 7..8));
    assert!(sequence_of(&simulation, a).awaits_token());
    simulation.scheduler.append(a, 42);
    assert_eq!(
        (sequence_of(&simulation, a).token_ids[7], sequence_of(&simulation, a).awaits_token()),
        (42, false)
    );
    simulation.run(&ahead);
    simulation.commit(&ahead);
    simulation.scheduler.append(a, 43);
    assert_eq!(sequence_of(&simulation, a).token_ids.len(), 9, "what nobody expects is added");
    // The block that the token filled is remembered by what it turned out to be.
    let b = id(0, 9, 0);
    simulation.add(b, prompt(0, 7).chain([42, 5]));
    simulation.step();
    assert_eq!(simulation.scheduler.counts().prefix_hit_tokens, 8);
}

#[test]
fn who_gave_way_begins_again_once_its_token_is_known() {
    let mut simulation = simulation(64, 8, 8);
    let a = add(&mut simulation, &[6])[0];
    simulation.step();
    simulation.scheduler.expect(a);
    simulation.scheduler.reclaim(a);
    assert_eq!(simulation.plan(), Plan::default());
    simulation.scheduler.append(a, 42);
    assert_eq!(planned(&simulation.step()), [(a, 3)], "the full block is remembered");
}
