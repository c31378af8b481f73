//! Gemma 4 with several sequences in one forward: company changes no sequence's logits.

use candle_core::{DType, Device, Tensor};
use pyrex_core::batch::{Batch, Chunk, SoftTokens, Wanted};
use pyrex_core::kv::KvPool;
use pyrex_core::models::LoadedModel;
use pyrex_core::prompt::EncodedPrompt;
use pyrex_core::trace::NoTap;
use pyrex_tests::{
    BLOCK_SIZE, LAST, Run, chat_prompt, golden_json, ids, load_model, pool, rel_l2, reordered,
};

/// Blocks each sequence of a batch may use.
const BLOCKS: usize = 12;

/// One sequence of a batch: its prompt and its own blocks, scattered over the pool.
struct Member {
    prompt: EncodedPrompt,
    soft_tokens: Option<(Vec<usize>, Tensor)>,
    block_table: Vec<u32>,
    done: usize,
}

fn members(loaded: &LoadedModel, prompts: Vec<EncodedPrompt>) -> Vec<Member> {
    let count = prompts.len();
    let member = |(index, prompt): (usize, EncodedPrompt)| {
        let run = Run::new(loaded.model.as_ref(), 1);
        let soft_tokens = run.encode_images(&mut NoTap, &prompt);
        let block_table = (0..BLOCKS).rev().map(|block| (block * count + index) as u32).collect();
        Member { prompt, soft_tokens, block_table, done: 0 }
    };
    prompts.into_iter().enumerate().map(member).collect()
}

/// Runs the next `lens[i]` tokens of each member in one forward; logits of the last row of each, `[V]`.
fn step(loaded: &LoadedModel, kv: &mut KvPool, members: &mut [Member], lens: &[usize]) -> Vec<Vec<f32>> {
    let chunks: Vec<Chunk<'_>> = members
        .iter()
        .zip(lens)
        .map(|(member, len)| Chunk {
            input_ids: &member.prompt.input_ids[member.done..member.done + len],
            first_position: member.done,
            block_tables: vec![&member.block_table; kv.num_groups()],
            wanted: Wanted::Last,
        })
        .collect();
    let mut batch = Batch::new(&chunks, BLOCK_SIZE, &Device::Cpu).unwrap();
    batch.soft_tokens = soft_tokens(members, lens);
    let logits = loaded.model.forward(&batch, kv, &mut NoTap).unwrap();
    members.iter_mut().zip(lens).for_each(|(member, len)| member.done += len);
    logits.to_vec2().unwrap()
}

fn soft_tokens(members: &[Member], lens: &[usize]) -> Option<SoftTokens> {
    let (mut rows, mut embeds, mut first_row) = (Vec::new(), Vec::new(), 0);
    for (member, len) in members.iter().zip(lens) {
        if let Some((positions, features)) = &member.soft_tokens {
            for (index, position) in positions.iter().enumerate() {
                if (member.done..member.done + len).contains(position) {
                    rows.push((first_row + position - member.done) as u32);
                    embeds.push(features.narrow(0, index, 1).unwrap());
                }
            }
        }
        first_row += len;
    }
    let count = rows.len();
    (count > 0).then(|| SoftTokens {
        rows: Tensor::from_vec(rows, count, &Device::Cpu).unwrap(),
        embeds: Tensor::cat(&embeds, 0).unwrap(),
    })
}

/// The prompt's last logits and those of `extra` more tokens, alone.
fn alone(loaded: &LoadedModel, prompt: &EncodedPrompt, first: usize) -> Vec<Vec<f32>> {
    let mut run = Run::new(loaded.model.as_ref(), prompt.input_ids.len());
    let soft = run.encode_images(&mut NoTap, prompt);
    let mut logits = vec![run.forward(&mut NoTap, &prompt.input_ids[..first], soft.as_ref(), LAST)];
    for id in &prompt.input_ids[first..] {
        logits.push(run.forward(&mut NoTap, &[*id], None, LAST));
    }
    logits.iter().map(|logits| logits.flatten_all().unwrap().to_vec1().unwrap()).collect()
}

/// known-bugs 6 and 7: PLE under a batched prefill; batches of 4 and more; text and images side by side.
#[test]
fn known_bugs_06_07_sequences_in_company_have_the_logits_they_have_alone() {
    for checkpoint in ["shapes", "e2b-like", "e4b-like"] {
        let loaded = load_model(checkpoint, DType::F32);
        let goldens = golden_json(&format!("{checkpoint}/greedy.json"));
        let prompts: Vec<EncodedPrompt> = goldens
            .as_array()
            .unwrap()
            .iter()
            .take(12)
            .map(|golden| {
                let mut prompt = loaded.processor.encode(&chat_prompt(&golden["messages"])).unwrap();
                // Four tokens to decode after the prompt, the same alone and in company.
                prompt.input_ids.extend([301, 302, 303, 304]);
                prompt
            })
            .filter(|prompt| prompt.input_ids.len() <= BLOCKS * BLOCK_SIZE)
            .collect();
        assert!(prompts.len() >= 6 && prompts.iter().any(|prompt| !prompt.images.is_empty()));
        let firsts: Vec<usize> = prompts.iter().map(|prompt| prompt.input_ids.len() - 4).collect();
        let expected: Vec<_> =
            prompts.iter().zip(&firsts).map(|(prompt, first)| alone(&loaded, prompt, *first)).collect();
        let mut kv = pool(loaded.model.as_ref(), BLOCKS * prompts.len());
        let mut members = members(&loaded, prompts);
        for round in 0..5 {
            let lens = if round == 0 { firsts.clone() } else { vec![1; firsts.len()] };
            let logits = step(&loaded, &mut kv, &mut members, &lens);
            for (index, (ours, expected)) in logits.iter().zip(&expected).enumerate() {
                let error = rel_l2(ours, &expected[round]);
                assert!(
                    error < reordered(checkpoint),
                    "{checkpoint}, sequence {index}, round {round}: {error:.2e}"
                );
            }
        }
    }
}

/// A decode of one sequence and a chunk of another's prefill share a step.
#[test]
fn prefill_and_decode_share_a_forward() {
    let loaded = load_model("e2b-like", DType::F32);
    let ids = ids(&golden_json("e2b-like/long.json")["ids"]);
    let prompt = |ids: &[u32]| EncodedPrompt { input_ids: ids.to_vec(), images: Vec::new() };
    let (a, b) = (prompt(&ids[..60]), prompt(&ids[30..90]));
    let (alone_a, alone_b) = (alone(&loaded, &a, 50), alone(&loaded, &b, 60));
    let mut kv = pool(loaded.model.as_ref(), BLOCKS * 2);
    let mut members = members(&loaded, vec![a, b]);
    step(&loaded, &mut kv, &mut members[..1], &[50]);
    for (round, len) in [7, 13, 1, 16, 17, 6].into_iter().enumerate() {
        let logits = step(&loaded, &mut kv, &mut members, &[1, len]);
        assert!(rel_l2(&logits[0], &alone_a[round + 1]) < reordered("e2b-like"));
        if round == 5 {
            assert!(rel_l2(&logits[1], &alone_b[0]) < reordered("e2b-like"));
        }
    }
}
