"""A split of a dataset on the Hub, as Parquet files on this machine.

The Hub converts public datasets to Parquet by itself (branch refs/convert/parquet, CONFIG/SPLIT/*.parquet); where it has
not, files that are named after their split are taken as they are. Downloads go to the Hub's own cache, which serves
without a network later. No code of a dataset is ever run, and nothing is unpickled: the package `datasets` is not needed.
"""

from collections.abc import Sequence
from pathlib import Path

from contracts.errors import DataError

CONVERTED = "refs/convert/parquet"
_ADVICE = "Or download the data once, anywhere, and set task.path to the file"


def hub_files(dataset: str, config: str | None, split: str) -> list[Path]:
    """In order. Raises DataError with what is missing: the dataset, the configuration, the split, or the network."""
    for name in (config or "", split):
        if odd := sorted(set(name) & set("[]*?/:%")):
            raise DataError(
                f"hub dataset {dataset}: '{name}' holds {odd[0]}: configurations and splits are given by their plain names; "
                f"the whole split is read. {_ADVICE}"
            )
    found = _download(dataset, CONVERTED, [f"{config or '*'}/{split}/*.parquet"])
    if not found:
        found = _download(dataset, "main", _named_after(config, split))
    if not found:
        raise DataError(
            f"hub dataset {dataset}: no files of split '{split}'"
            + (f" of configuration '{config}'" if config else "")
            + f". Set task.hub_config and task.hub_split to what its page on the Hub shows. {_ADVICE}"
        )
    configs = sorted({path.parent.parent.name for path in found if path.parent.name == split})
    if len(configs) > 1:
        raise DataError(
            f"hub dataset {dataset} has several configurations: {', '.join(configs)}. Choose one: task.hub_config"
        )
    return found


def _named_after(config: str | None, split: str) -> list[str]:
    """Names that the Hub itself reads without being told: data/train-00000-of-00001.parquet, main/test.jsonl, ..."""
    folders = [f"{config}/"] if config else ["", "data/"]
    ends = [".parquet", "-*.parquet", "/*.parquet", ".jsonl", ".csv"]
    return [f"{folder}{split}{end}" for folder in folders for end in ends]


def _download(dataset: str, revision: str, patterns: Sequence[str]) -> list[Path]:
    """Empty where the dataset has no such branch or files."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        folder = Path(snapshot_download(dataset, repo_type="dataset", revision=revision, allow_patterns=list(patterns)))
    except RevisionNotFoundError:
        return []
    except RepositoryNotFoundError as error:
        raise DataError(
            f"hub dataset {dataset}: not found on the Hub, or not open to this account; write it OWNER/NAME, and set HF_TOKEN "
            f"where it is private or gated. {_ADVICE}"
        ) from error
    except LocalEntryNotFoundError as error:
        cause = error.__cause__ or error
        raise DataError(
            f"hub dataset {dataset}: the Hub cannot be reached ({type(cause).__name__}) and the cache has no copy of its "
            f"split. {_ADVICE}"
        ) from error
    except Exception as error:
        raise DataError(f"hub dataset {dataset}: {type(error).__name__}: {str(error)[:300]}. {_ADVICE}") from error
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})
