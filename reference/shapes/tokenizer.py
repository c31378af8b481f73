"""A small Gemma-style BPE: space becomes U+2581, byte fallback, no pre-tokenisation, Gemma 4's special tokens."""

import json
import os
import random
import re
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from . import words
from .scenes import Scene

VOCAB_SIZE = 2048
HEAD = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
CONTROLS = [
    "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>',
    "<|think|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>",
]  # fmt: skip
MEDIA = ["<|image>", "<|audio>", "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
ALPHABET = [chr(code) for code in range(33, 127)] + ["\n", "\t", "▁", *"éèöüÇçßà"]
NAMED = {
    "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>",
    "image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>", "audio_token": "<|audio|>",
    "boa_token": "<|audio>", "eoa_token": "<audio|>", "sot_token": "<|turn>", "eot_token": "<turn|>",
    "soc_token": "<|channel>", "eoc_token": "<channel|>", "think_token": "<|think|>", "escape_token": '<|"|>',
    "std_token": "<|tool>", "etd_token": "<tool|>", "stc_token": "<|tool_call>", "etc_token": "<tool_call|>",
    "str_token": "<|tool_response>", "etr_token": "<tool_response|>",
}  # fmt: skip


def own_texts(rng, count):
    """What the model will read and write."""
    texts = []
    for _ in range(count):
        scene = Scene(rng, rng.randrange(48, 200), rng.randrange(48, 200))
        texts += [text.replace("<|image|>", "") for _role, text in words.image_conversation(scene, rng, 3)]
        texts += [text for _role, text in words.text_conversation(rng)]
    return texts + ["system", "user", "model", "thought"] * (count // 10)


def general_texts():
    """English with some code in it: the doc strings of Python's standard library."""
    sources = sorted(Path(os.__file__).parent.glob("*.py"))
    code = "\n".join(source.read_text(errors="ignore") for source in sources)
    return [*re.findall(r'"""(.{80,4000}?)"""', code, flags=re.DOTALL), code[:60000]]


def learn_merges(texts, size):
    """Vocabulary and merges of a plain BPE over words, single digits and runs of blanks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁?[A-Za-z]+|[0-9]|\n+|▁+|[^A-Za-z0-9▁\n]"), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, initial_alphabet=ALPHABET, limit_alphabet=200, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in learned["merges"]]
    return sorted(learned["vocab"], key=learned["vocab"].get), merges


def assemble(pieces, merges):
    """The tokenizer in Gemma's arrangement, special ids at both ends of the vocabulary."""
    vocab = {token: i for i, token in enumerate([*HEAD, *CONTROLS, *BYTES, *pieces, *MEDIA])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, fuse_unk=True, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in [*HEAD, *CONTROLS, *MEDIA]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", vocab["<bos>"])]
    )
    return tokenizer


def make_tokenizer(folder, conversations=6000):
    """Writes `tokenizer.json` and `tokenizer_config.json`; the own corpus weighs six times the general one."""
    fixed = len(HEAD) + len(CONTROLS) + len(MEDIA) + len(BYTES)
    texts = own_texts(random.Random(1), conversations) * 6 + general_texts()
    tokenizer = assemble(*learn_merges(texts, VOCAB_SIZE - fixed))
    assert tokenizer.get_vocab_size() == VOCAB_SIZE, "too few texts to fill the vocabulary"
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "GemmaTokenizer", "processor_class": "Gemma4Processor", "backend": "tokenizers", **NAMED,
        "extra_special_tokens": ["<|video|>"], "padding_side": "left", "model_max_length": 10**30,
        "model_specific_special_tokens": {key: NAMED[key] for key in list(NAMED)[5:]},
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
