"""A model's tokenizer, its end tokens and the rows of its embedding, read from its files.

Each file may be missing or broken, and each says so in one sentence.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contracts.errors import LoadError
from loading.load_errors import loading

TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.tiktoken", "*.model")
"""What a folder with a tokenizer has one of."""


def read_tokenizer(model_path: str) -> tuple[Any, frozenset[int], str, int | None]:
    """A transformers tokenizer, what ends a text, model_path (a folder or hub id), and the rows of the model's embedding, None
    for a folder with a tokenizer alone. Raises LoadError."""
    from transformers import AutoTokenizer

    folder = Path(model_path)
    if folder.is_dir() and not any(next(folder.glob(name), None) for name in TOKENIZER_FILES):
        raise LoadError(
            f"no tokenizer in {model_path}: neither tokenizer.json nor tokenizer.model nor a vocabulary is there. Put the "
            "tokenizer's files beside config.json; they come with the model that you download or save"
        )
    with loading(
        f"cannot load a tokenizer from {model_path}",
        "Its files must be whole, and of a version that transformers reads",
    ):
        tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
    _refuse_no_vocabulary(tokenizer, model_path)
    ends = {tokenizer.eos_token_id, *_end_tokens(model_path)}
    return tokenizer, frozenset(end for end in ends if end is not None), model_path, _vocab_size(model_path)


def _refuse_no_vocabulary(tokenizer: Any, model_path: str) -> None:
    """Raises LoadError for one that transformers made without a vocabulary, as it does where tokenizer.json is missing."""
    one, other = (tokenizer(f"What is {number}?", add_special_tokens=False)["input_ids"] for number in (7, 12))
    if one == other:
        raise LoadError(
            f"the tokenizer of {model_path} has no vocabulary ({len(tokenizer)} tokens, and every text is the same to it): "
            "tokenizer.json or tokenizer.model is missing. Put it beside config.json; it comes with the model"
        )


def _end_tokens(model_path: str) -> Iterator[int | None]:
    """Of generation_config.json; a model may have none, then the tokenizer's end token stands alone."""
    from transformers import GenerationConfig

    if _lacks(model_path, "generation_config.json"):
        return
    advice = "Mend it, or remove it: the tokenizer names an end token too"
    with loading(f"cannot read generation_config.json of {model_path}", advice):
        try:
            listed = GenerationConfig.from_pretrained(model_path).eos_token_id
        except OSError:
            if Path(model_path).is_dir():
                raise
            return  # a hub id without that file
    found = listed if isinstance(listed, list) else [listed]
    if odd := [end for end in found if end is not None and type(end) is not int]:
        raise LoadError(
            f"generation_config.json of {model_path} names {odd[0]!r} as eos_token_id, which is a token's number or a list of "
            f"numbers. {advice}"
        )
    yield from found


def _vocab_size(model_path: str) -> int | None:
    from transformers import AutoConfig

    if _lacks(model_path, "config.json"):
        return None
    with loading(f"cannot read config.json of {model_path}", "It must name a kind of model that transformers has"):
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=False)
    rows: int | None = getattr(config.get_text_config(), "vocab_size", None)
    return rows


def _lacks(model_path: str, file: str) -> bool:
    """False for a hub id, of which nothing is known here."""
    folder = Path(model_path)
    return folder.is_dir() and not (folder / file).exists()
