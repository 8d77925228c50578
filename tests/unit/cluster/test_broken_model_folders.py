"""Model folders that are not what config.json says, by files: refused in one sentence by whoever reads them first."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from actors.config import ActorSettings
from actors.load import load_engine
from cluster.launch.model_store import resolve_model
from contracts.errors import LoadError
from learner.config import LearnerSettings
from learner.load import load_learner
from tasks.prompts import load_tokenizer
from tests.tiny_policy import tiny_llama, tiny_tokenizer
from tests.unit.tasks.test_tasks_prompts import saved

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def configured(model: Path, **fields: object) -> None:
    stored = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(stored | fields))


def weights(model: Path, changed: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(changed(load_file(model / WEIGHTS)), model / WEIGHTS, metadata={"format": "pt"})


def index_without_a_shard(model: Path) -> None:
    (model / WEIGHTS).unlink()
    tiny_llama().save_pretrained(model, max_shard_size="30KB")
    index = json.loads((model / INDEX).read_text())
    index["weight_map"] = {name: file for name, file in index["weight_map"].items() if "00002-of" not in file}
    (model / INDEX).write_text(json.dumps(index))


def missing_shard(model: Path) -> None:
    (model / WEIGHTS).unlink()
    tiny_llama().save_pretrained(model, max_shard_size="30KB")
    next(iter(model.glob("model-00002-*"))).unlink()


def spoilt(value: float) -> Callable[[Path], None]:
    def spoil(model: Path) -> None:
        weights(model, lambda t: t | {"model.norm.weight": torch.full_like(t["model.norm.weight"], value)})

    return spoil


SCALE = {"model.layers.0.mlp.up_proj.weight_scale": torch.ones(1)}
UP = "model.layers.0.mlp.up_proj.weight"


def stored_as(dtype: torch.dtype, name: str = UP) -> Callable[[Path], None]:
    return lambda model: weights(model, lambda t: t | {name: (t[name] * 10).to(dtype)})


def deeper(*layers: int, **fields: int) -> Callable[[Path], None]:
    """Copies of layer 0 under these numbers. fields: of config.json."""

    def deepen(model: Path) -> None:
        weights(
            model,
            lambda t: (
                t
                | {
                    name.replace("layers.0.", f"layers.{layer}."): tensor.clone()
                    for name, tensor in t.items()
                    for layer in layers
                    if "layers.0." in name
                }
            ),
        )
        configured(model, **fields)

    return deepen


LOADERS: dict[str, Callable[[str], object]] = {
    "engine": lambda path: load_engine(
        ActorSettings(engine="transformers", device="cpu", dtype="float32"), path, tiny_tokenizer()
    ),
    "learner": lambda path: load_learner(LearnerSettings(dtype="float32", device="cpu"), path, 0, "", (), 8),
}


@pytest.mark.parametrize("who", LOADERS)
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda m: configured(m, num_hidden_layers=3), r"lack 9 weights .*random numbers: model\.layers\.2"),
        (index_without_a_shard, r"lack \d+ weights .*and \d+ more"),
        (missing_shard, r"No such file or directory: .*model-00002-of-"),
        (lambda m: weights(m, lambda t: {f"backbone.{k}": v for k, v in t.items()}), "lack 21 weights"),
        (lambda m: weights(m, lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"}), r"lm_head\.weight"),
        (lambda m: configured(m, hidden_size=64), r"hold another model's weights: .* \(21 of this kind\)"),
        (
            lambda m: configured(m, vocab_size=50),
            r"lm_head\.weight is \[\d+, 32\] there and \[50, 32\] by config\.json",
        ),
        (lambda m: weights(m, lambda t: t | SCALE), r"hold quantised weights \(.*up_proj\.weight_scale\)"),
        (
            deeper(2, 3),
            r"hold 4 layers and config\.json declares 2: model\.layers\.2\.\S+, .*num_hidden_layers = 4",
        ),
        (stored_as(torch.int8), r"stored as I8 .*up_proj\.weight\), and config\.json names no quantisation"),
        (stored_as(torch.uint8, "lm_head.weight"), r"stored as U8 \(lm_head\.weight"),
        (stored_as(torch.float8_e4m3fn), r"stored as F8_E4M3 .*Give the model that it was quantised from"),
        (spoilt(float("nan")), r"damaged: model\.norm\.weight holds NaN or infinity in torch\.float32"),
        (spoilt(float("inf")), r"damaged: model\.norm\.weight holds NaN or infinity"),
        (lambda m: (m / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n" * 3), "SafetensorError"),
    ],
)
def test_weights_that_are_not_those_of_the_configuration_are_refused(
    model: Path, spoil: Callable[[Path], None], says: str, who: str
) -> None:
    """transformers draws what is missing at random and says so on another process's standard error."""
    spoil(model)
    with pytest.raises(LoadError, match=says):
        LOADERS[who](str(model))


def shards(model: Path) -> None:
    """The same weights in several files, of which a later one has a weight in int8."""
    found = {name: tensor.clone() for name, tensor in load_file(model / WEIGHTS).items()}
    (model / WEIGHTS).unlink()
    half = len(found) // 2
    parts = [dict(list(found.items())[:half]), dict(list(found.items())[half:])]
    name = next(name for name in parts[1] if name.endswith("_proj.weight"))
    parts[1][name] = parts[1][name].to(torch.int8)
    for number, part in enumerate(parts, 1):
        save_file(part, model / f"model-0000{number}-of-00002.safetensors", metadata={"format": "pt"})
    where = {key: f"model-0000{number}-of-00002.safetensors" for number, part in enumerate(parts, 1) for key in part}
    (model / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))


def test_every_shard_is_looked_at(model: Path) -> None:
    shards(model)
    with pytest.raises(LoadError, match=r"stored as I8 \(\S+_proj\.weight\)"):
        LOADERS["learner"](str(model))


BUFFERS = {
    "model.layers.0.self_attn.position_ids": torch.arange(4),
    "model.layers.0.self_attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
    "model.vision.layers.9.weight": torch.ones(2),
    "model.mtp.layers.5.weight": torch.ones(2),
}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: weights(m, lambda t: t | BUFFERS),
        deeper(2, num_nextn_predict_layers=1),
        deeper(2, mtp_num_hidden_layers=1),
        stored_as(torch.float16),
        stored_as(torch.float64),
    ],
)
def test_what_belongs_beside_a_models_weights_is_no_fault(model: Path, spoil: Callable[[Path], None]) -> None:
    """Buffers of integers, other towers, layers for several tokens at once that the configuration declares."""
    spoil(model)
    LOADERS["engine"](str(model))


def test_layers_beyond_those_that_are_declared_are_refused_all_the_same(model: Path) -> None:
    deeper(2, 3, num_nextn_predict_layers=1)(model)
    with pytest.raises(LoadError, match=r"hold 4 layers and config\.json declares 2 and 1 for several tokens at once"):
        LOADERS["engine"](str(model))


def folder_with(files: dict[str, str]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder

    return make


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (folder_with({"adapter_config.json": "{}"}), r"holds a LoRA adapter.*memr export RUN OUT --merge"),
        (folder_with({"adapter_config.json": "{}", "config.json": '{"model_type": "llama"}'}), "holds a LoRA adapter"),
        (folder_with({"m-Q4_K_M.gguf": "GGUF"}), r"no config\.json.*Of a GGUF file, give the model"),
        (folder_with({"checkpoint-9/config.json": "{}"}), r"no config\.json.*Did you mean its folder 'checkpoint-9'"),
        (folder_with({"manifest.json": "{}"}), r"a run of memr; write its model first: `memr export .* OUT --merge`"),
        (folder_with({"config.json": '{"model_type": "t5"}'}), "type t5, an encoder with a decoder"),
        (folder_with({"config.json": '{"model_type": "bart"}'}), "type bart, an encoder with a decoder"),
        (folder_with({"config.json": '{"model_type": "clip"}'}), "type clip, no causal language model"),
        (
            folder_with({"config.json": '{"model_type": "llama"}', "hf_quant_config.json": "{}"}),
            r"quantised \(modelopt, hf_quant_config\.json\)",
        ),
        (lambda folder: folder_with({"m.safetensors": ""})(folder) / "m.safetensors", "a file; give the folder"),
        (lambda folder: folder / ("a" * 300), "cannot be looked at: OSError: .*File name too long"),
        (lambda _: Path("~nobody-of-this-name/model"), "cannot be looked at: RuntimeError"),
    ],
)
def test_a_folder_that_is_no_model_to_train_is_named_for_what_it_is(
    tmp_path: Path, make: Callable[[Path], Path], says: str
) -> None:
    with pytest.raises(LoadError, match=rf"model\.name = .*{says}"):
        resolve_model(str(make(tmp_path)))


@pytest.mark.parametrize("tokenizer_class", ["Qwen2Tokenizer", "LlamaTokenizer", "T5Tokenizer"])
def test_a_tokenizer_without_its_vocabulary_is_refused(tmp_path: Path, tokenizer_class: str) -> None:
    """transformers makes an empty one without a word: every prompt would be empty, or all unknown."""
    folder = Path(saved(tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    stored = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(stored | {"tokenizer_class": tokenizer_class}))
    with pytest.raises(LoadError, match=r"model has no vocabulary \(\d+ tokens.*tokenizer\.json or tokenizer\.model"):
        load_tokenizer(str(folder))


def test_a_folder_without_any_tokenizer_says_so_and_sends_nobody_to_install_one(model: Path) -> None:
    with pytest.raises(LoadError, match=r"no tokenizer in .*model: .*tokenizer\.json.*download") as refused:
        load_tokenizer(str(model))
    assert "sentencepiece" not in str(refused.value)


@pytest.mark.parametrize("named", ['"<|im_end|>"', "[[2]]", "2.5", "true"])
def test_an_end_token_that_is_no_number_names_its_file(tmp_path: Path, named: str) -> None:
    folder = saved(tmp_path / "model", f'{{"eos_token_id": {named}}}')
    with pytest.raises(LoadError, match=r"generation_config\.json of .*model names .* as eos_token_id"):
        load_tokenizer(folder)


def test_links_that_lead_nowhere_are_files_that_are_missing(model: Path) -> None:
    (model / "config.json").rename(model / "there.json")
    (model / "config.json").symlink_to("config.json")
    with pytest.raises(LoadError, match=r"no config\.json"):
        resolve_model(str(model))
    shutil.rmtree(model)
    model.symlink_to(model)
    with pytest.raises(LoadError, match="no such folder"):
        resolve_model(str(model))
