"""Whatever a library raises while it loads is one sentence, once."""

import pickle

import pytest

from contracts.errors import ConfigError, DataError, EngineError, LoadError
from loading.load_errors import MAX_TOLD, loading, out_of_memory


class BareError(Exception):
    """As tokenizers' Rust side raises."""


@pytest.mark.parametrize(
    "error",
    [ImportError("no bitsandbytes"), BareError("a\n  b"), KeyError("weight"), AttributeError("x"), OSError("gone")],
)
def test_any_error_becomes_one_line_with_its_type_and_what_to_do(error: Exception) -> None:
    with pytest.raises(LoadError) as caught, loading("cannot load the model m", "Give another"):
        raise error
    words = " ".join(str(error).split())
    assert str(caught.value) == f"cannot load the model m: {type(error).__name__}: {words}. Give another"
    assert caught.value.__cause__ is error


def test_what_memr_says_itself_stays_and_bad_data_of_a_model_refuses_to_load() -> None:
    for error in (LoadError("tokenizer"), ConfigError("setting"), EngineError("engine")):
        with pytest.raises(type(error)) as caught, loading("cannot load"):
            raise error
        assert caught.value is error
    with pytest.raises(LoadError, match=r"^soft caps$"), loading("cannot load"):
        raise DataError("soft caps")


def test_an_interrupt_is_no_refusal() -> None:
    with pytest.raises(KeyboardInterrupt), loading("cannot load"):
        raise KeyboardInterrupt


def test_a_library_that_tells_a_page_is_cut_and_the_advice_is_kept() -> None:
    with pytest.raises(LoadError) as caught, loading("cannot load m", "Give another"):
        raise ValueError("word " * 1000)
    assert len(str(caught.value)) < MAX_TOLD + 100
    assert str(caught.value).endswith("... . Give another") or str(caught.value).endswith("Give another")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        ValueError(
            "Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU memory utilization (0.9, 71 GiB)"
        ),
        ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
    ],
)
def test_want_of_memory_has_advice_of_its_own(error: Exception) -> None:
    assert out_of_memory(error)
    with pytest.raises(LoadError, match="smaller model") as caught, loading("cannot load m", "Mend the file"):
        raise error
    assert "Mend the file" not in str(caught.value)
    assert not out_of_memory(ValueError("no memory of that"))


def test_no_library_advises_what_memr_does_not_do() -> None:
    error = ValueError("m contains custom code. Please pass the argument `trust_remote_code=True` to allow it")
    with (
        pytest.raises(LoadError, match=r"memr runs none.*Choose one that") as caught,
        loading("cannot load m", "Mend it"),
    ):
        raise error
    assert "=True" not in str(caught.value)


def test_the_error_travels() -> None:
    again = pickle.loads(pickle.dumps(LoadError("cannot load")))  # noqa: S301  what Ray does with it
    assert type(again) is LoadError
    assert str(again) == "cannot load"
