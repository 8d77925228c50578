"""What is named and not there: told at once, with what was probably meant, and without asking a hub that is not there."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from cluster.launch.model_store import PACKAGED_MODEL, resolve_model
from contracts.errors import DataError, LoadError
from loading.hub import may_be_id, refuse_unreachable, why_unreachable
from loading.near_names import near_path
from memory_service.config import MemorySettings
from memory_service.encoder import load_encoder
from tasks.problem_files import read_rows
from tests.tiny_policy import tiny_llama


@pytest.fixture
def nobody_asks_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_args: object, **_kwargs: object) -> Any:
        raise AssertionError("somebody tried the hub")

    monkeypatch.setattr("socket.getaddrinfo", asked)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", asked)
    monkeypatch.setattr("sentence_transformers.SentenceTransformer", asked)


@pytest.mark.usefixtures("nobody_asks_the_hub")
@pytest.mark.parametrize("name", ["./modles/small", "models/smal/", "../{here}/models/smal", "{whole}/modles/smaII"])
def test_a_path_that_is_not_there_is_told_with_what_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tiny_llama().save_pretrained(tmp_path / "models" / "small")
    (tmp_path / "modles.txt").touch()
    monkeypatch.chdir(tmp_path)
    name = name.format(here=tmp_path.name, whole=tmp_path)
    meant = tmp_path / "models" / "small"
    with pytest.raises(LoadError, match=rf"model\.name = .*no such folder: /.*Did you mean '{meant}'\? Give a folder"):
        resolve_model(name)
    with pytest.raises(LoadError, match=rf"memory\.encoder = .*no such folder: /.*Did you mean '{meant}'\? Give"):
        load_encoder(MemorySettings(encoder=name, device="cpu"))


@pytest.mark.usefixtures("nobody_asks_the_hub")
def test_a_path_that_is_like_nothing_is_told_without_a_guess(tmp_path: Path) -> None:
    (tmp_path / "entirely-different").mkdir()
    with pytest.raises(LoadError, match=r"no such folder: /.*/models/small\. Give a folder") as refused:
        resolve_model(f"{tmp_path}/models/small")
    assert "Did you mean" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "may_be"),
    [
        ("gpt2", True),
        ("Qwen/Qwen3-0.6B", True),
        ("models/small", True),
        ("./small", False),
        ("~/small", False),
        ("/models/small", False),
        ("a/b/c", False),
        ("a/b/", False),
        ("a b", False),
    ],
)
def test_what_can_be_a_hub_id(name: str, may_be: bool) -> None:
    assert may_be_id(name) == may_be


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub's host has no address; the library that would retry for a minute is not reached."""

    def unknown(host: str, *_args: object, **_kwargs: object) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    def asked(*_args: object, **_kwargs: object) -> Any:
        raise AssertionError("the library was asked")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", asked)
    monkeypatch.setattr("sentence_transformers.SentenceTransformer", asked)


@pytest.mark.usefixtures("no_network")
def test_a_hub_id_without_a_network_is_refused_before_anything_retries() -> None:
    says = r"the hub cannot be reached \(huggingface\.co:443: gaierror: .*Name or service.*Give .*HF_HUB_OFFLINE=1"
    with pytest.raises(LoadError, match=rf"model\.name = 'Qwen/Qwen3-0\.6B': .*{says}"):
        resolve_model("Qwen/Qwen3-0.6B")
    with pytest.raises(LoadError, match=rf"memory\.encoder = 'all-mpnet-base-v2' cannot be loaded: .*{says}"):
        load_encoder(MemorySettings(encoder="all-mpnet-base-v2", device="cpu"))


@pytest.mark.usefixtures("no_network")
def test_a_misspelt_name_of_our_own_model_or_of_a_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LoadError, match=f"Did you mean '{PACKAGED_MODEL}'"):
        resolve_model("smollm2-135m-instuct")
    (tmp_path / "models" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LoadError, match=r"cannot be reached .*Did you mean '/.*/models/small'\?"):
        resolve_model("models/smal")


@pytest.mark.usefixtures("no_network")
def test_what_the_cache_has_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cached = {("a/b", "model.safetensors")}
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repo, file, cache_dir: "/there" if (repo, file) in cached else None,
    )
    refuse_unreachable("it", "a/b", "")
    with pytest.raises(LoadError):
        refuse_unreachable("it", "a/c", "")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refuse_unreachable("it", "a/c", "")


def test_a_host_is_reached_by_any_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert why_unreachable("127.0.0.1", port) is None
        of_hub = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (f"127.0.0.{n}", port)) for n in (2, 1, 3)]
        really = socket.getaddrinfo
        monkeypatch.setattr(
            "socket.getaddrinfo",
            lambda host, *args, **kwargs: of_hub if host == "hub" else really(host, *args, **kwargs),
        )
        assert why_unreachable("hub", port) is None
    assert "ConnectionRefusedError" in (why_unreachable("hub", port) or "")


def test_a_name_server_that_never_answers_costs_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_args, **_kwargs: [done.wait()][:0])
    assert why_unreachable("hub", 443, limit_s=0.05) == "no answer within 0.05 s"
    done.set()


def test_the_proxy_is_what_has_to_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(LoadError, match=r"127\.0\.0\.1:1: ConnectionRefusedError"):
        refuse_unreachable("it", "a/b", "Give another")
    monkeypatch.setenv("no_proxy", "huggingface.co")
    monkeypatch.setattr("loading.hub.why_unreachable", lambda host, port: f"asked {host}")
    with pytest.raises(LoadError, match=r"asked huggingface\.co"):
        refuse_unreachable("it", "a/b", "Give another")


def test_near_paths_are_spelt_alike_in_every_part(tmp_path: Path) -> None:
    (tmp_path / "data" / "train.jsonl").mkdir(parents=True)
    (tmp_path / "data" / "train.csv").touch()
    assert near_path(tmp_path / "dta" / "trian.csv", folder=False) == tmp_path / "data" / "train.csv"
    assert near_path(tmp_path / "dta" / "trian.csv", folder=True) == tmp_path / "data" / "train.jsonl"
    assert near_path(tmp_path / "data" / "train.csv", folder=False) is None, "it is there"
    assert near_path(tmp_path / "data" / "tests.csv", folder=False) is None, "alike in its suffix alone"
    assert near_path(tmp_path / ("a" * 300), folder=False) is None


def test_a_data_file_that_is_not_there_is_told_with_what_was_meant(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").touch()
    with pytest.raises(
        DataError, match=rf"mien\.jsonl: no such file\. Did you mean '{tmp_path}/mine\.jsonl'\? Set task"
    ):
        read_rows(tmp_path / "mien.jsonl")
