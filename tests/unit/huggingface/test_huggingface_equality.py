import itertools

import pytest
import torch

pytest.importorskip("transformers", reason="needs transformers, whose networks are the reference")

import transformers
from huggingface_models import LENGTH, VOCABULARY, bring, ending, give, published, save, tokenizer

import torchloom
from torchloom.contracts.attention import AttentionMask

CLOSE = {"rtol": 0.0, "atol": 1e-5}
TOKENS = torch.randint(5, VOCABULARY, (3, LENGTH), generator=torch.Generator().manual_seed(1))
DECODERS = {
    "gpt2": ("gpt2", "GPT2LMHeadModel", {}),
    "gpt2 of its own width": ("gpt2", "GPT2LMHeadModel", {"n_inner": 40, "layer_norm_epsilon": 1e-3}),
    "llama": ("llama", "LlamaForCausalLM", {}),
    "llama, tied": ("llama", "LlamaForCausalLM", {"tie_word_embeddings": True, "rms_norm_eps": 1e-3}),
    "llama, long heads": ("llama", "LlamaForCausalLM", {"head_dim": 10, "rope_parameters": {"rope_theta": 500.0}}),
}
T5 = {
    "t5": {},
    "t5 1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "initializer_factor": 0.3},
}


def same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert theirs.std() > 0.3  # a network that said the same of everything would prove nothing
    torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_imported_decoder_gives_the_same_logits_and_the_same_text(name, tmp_path):
    kind, cls, settings = DECODERS[name]
    theirs = published(kind, cls, **settings)
    ours = bring(save(theirs, tmp_path / "theirs"), tmp_path / "run")
    same(ours.model(tokens=TOKENS), theirs(TOKENS).logits)
    prompts = ["Once upon", "a", "The 3rd"]
    ends = ending(theirs)
    for prompt in prompts:
        ids = ours.tokenizer.encode(prompt)[None]
        made = theirs.generate(
            ids, do_sample=False, max_new_tokens=12, attention_mask=torch.ones_like(ids), eos_token_id=ends
        )
        new = list(itertools.takewhile(lambda token: token not in ends, made[0, ids.shape[1] :].tolist()))
        expected = prompt + ours.tokenizer.decode(new)
        assert ours.generate(prompt, max_new_tokens=12, temperature=0.0).texts == [expected]


@torch.no_grad()
def test_imported_bert_gives_the_same_logits_with_segments_and_padding(tmp_path):
    theirs = published("bert", "BertForMaskedLM")
    ours = bring(save(theirs, tmp_path / "theirs"), tmp_path / "run")
    segments = (torch.arange(LENGTH) > 7).long().expand(3, -1)
    lengths = torch.tensor([LENGTH, 13, 1])
    real = torch.arange(LENGTH) < lengths[:, None]
    expected = theirs(TOKENS, attention_mask=real.long(), token_type_ids=segments).logits
    made = ours.model(tokens=TOKENS, segments=segments, mask=AttentionMask(key_lengths=lengths))
    same(made[real], expected[real])
    same(ours.model(tokens=TOKENS), theirs(TOKENS).logits)
    assert ours.spec.mask_id == 4


@torch.no_grad()
def test_bert_without_a_head_gives_the_same_vectors_and_says_that_the_head_is_random(tmp_path, capsys):
    theirs = published("bert", "BertModel")
    ours = bring(save(theirs, tmp_path / "theirs"), tmp_path / "run")
    same(ours.model.architecture.sequence(TOKENS), theirs(TOKENS).last_hidden_state)
    told = capsys.readouterr().err
    assert (
        "; the head of mlm is not among them and stays random; left behind: pooler.dense.bias, pooler.dense.we" in told
    )


@pytest.mark.parametrize("name", T5)
@torch.no_grad()
def test_imported_t5_gives_the_same_logits(name, tmp_path):
    theirs = published("t5", "T5ForConditionalGeneration", **T5[name])
    if name == "t5 1.1":
        theirs.lm_head.weight = torch.nn.Parameter(theirs.lm_head.weight.flip(0).clone())
        theirs.config.tie_word_embeddings = False
    ours = bring(save(theirs, tmp_path / "theirs"), tmp_path / "run")
    lengths = torch.tensor([LENGTH, 13, 1])
    real = torch.arange(LENGTH) < lengths[:, None]
    target = TOKENS.flip(1)[:, :17]
    expected = theirs(TOKENS, attention_mask=real.long(), decoder_input_ids=target).logits
    architecture = ours.model.architecture
    same(ours.model.head(architecture.decode(target, architecture.encode(TOKENS, lengths))), expected)
    assert (ours.spec.pad_id, ours.spec.bos_id, ours.spec.eos_id) == (0, None, 1)


TEXT = "the cat sat on the mat and the dog ate the hat, " * 40
TRAINED = {
    "GPT2LMHeadModel": """architecture=nanogpt architecture.activation=gelu_tanh architecture.bias=true objective=clm
        tokenizer=bpe tokenizer.vocab_size=275 tokenizer.min_frequency=1""",
    "LlamaForCausalLM": """architecture=decoder architecture.num_kv_heads=2 architecture.tie_embeddings=false
        architecture.head_dim=6 objective=clm tokenizer=bpe tokenizer.vocab_size=275 tokenizer.min_frequency=1""",
    "BertForMaskedLM": "architecture=bert objective=mlm tokenizer=wordpiece tokenizer.vocab_size=40",
    "T5ForConditionalGeneration": """architecture=t5 architecture.decoder_layers=1 architecture.head_dim=6
        objective=seq2seq tokenizer=unigram tokenizer.vocab_size=273 tokenizer.special_tokens=[pad,eos,unk]""",
    "T5ForConditionalGeneration, gated": """architecture=t5 architecture.activation=geglu_tanh objective=seq2seq
        architecture.tie_embeddings=false tokenizer=unigram tokenizer.vocab_size=273
        tokenizer.special_tokens=[pad,eos,unk]""",
}
SMALL_RUN = """architecture.d_model=32 architecture.num_layers=2 architecture.num_heads=4 architecture.init_std=0.2
    dataset=text_files dataset.context_length=12 dataset.batch_size=4 trainer.max_steps=2 trainer.accelerator=cpu
    callbacks=[checkpoint] logger=[csv] compile=false"""


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_trained_here_gives_the_same_logits_there_and_comes_back(name, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    words = [*TRAINED[name].split(), *SMALL_RUN.split(), f"dataset.path={tmp_path}/text.txt"]
    torchloom.train(torchloom.compose(words), tmp_path / "run")
    ours = torchloom.load(tmp_path / "run", device="cpu")
    folder = give(tmp_path / "run", tmp_path / "theirs")
    cls = getattr(transformers, name.partition(",")[0])
    theirs, info = cls.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info  # keys missing, left over or misshapen
    again = bring(folder, tmp_path / "again")
    tokens = torch.randint(0, ours.spec.vocab_size, (2, 12), generator=torch.Generator().manual_seed(2))
    if cls is transformers.T5ForConditionalGeneration:
        given, expected = (
            {"source": tokens, "target": tokens[:, 3:9].flip(1)},
            {"decoder_input_ids": tokens[:, 3:9].flip(1)},
        )
    else:
        given, expected = {"tokens": tokens}, {}
        assert again.spec == ours.spec
    with torch.no_grad():
        logits = ours.model(**given)
        same(theirs.eval()(tokens, **expected).logits, logits)
        torch.testing.assert_close(again.model(**given), logits, rtol=0.0, atol=1e-6)
    text = "the cat ate the mat"
    auto = transformers.AutoTokenizer.from_pretrained(folder)
    assert auto(text, add_special_tokens=False).input_ids == ours.tokenizer.encode(text).tolist()
    assert again.tokenizer.encode(text).tolist() == ours.tokenizer.encode(text).tolist()


def test_tokenizers_of_the_tests_have_the_networks_size():
    assert {tokenizer(kind).get_vocab_size() for kind in ("gpt2", "llama", "bert", "t5")} == {VOCABULARY}
