"""No card that is there is passed over in silence."""

from pathlib import Path

import pytest

from contracts.errors import ConfigError
from loading.device import cards, choose_device, driver_version, old_driver


def machine(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["nvidia0", "nvidia1"]),
        ("1", ["1"]),
        ("0, 1", ["0", "1"]),
        ("GPU-5a,MIG-7", ["GPU-5a", "MIG-7"]),
        ("", []),  # what Ray sets for a process that asked for none
        ("-1", []),
        ("0,-1,1", ["0"]),
    ],
)
def test_cards_are_those_that_the_process_is_meant_to_use(
    visible: str | None, expected: list[str], tmp_path: Path
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    there = machine(tmp_path, "nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null")
    assert cards(environment, there) == expected


def test_a_variable_makes_no_card(tmp_path: Path) -> None:
    assert cards({"CUDA_VISIBLE_DEVICES": "0"}, machine(tmp_path, "null")) == []


@pytest.mark.parametrize(
    ("setting", "usable", "there", "expected"),
    [
        ("auto", True, ["0"], "cuda"),
        ("auto", False, [], "cpu"),
        ("cpu", True, ["0"], "cpu"),
        ("cpu", False, ["0"], "cpu"),
        ("cuda", True, ["0"], "cuda"),
    ],
)
def test_the_device_follows_the_setting_and_the_machine(
    setting: str, usable: bool, there: list[str], expected: str
) -> None:
    assert choose_device(setting, "learner.device", usable=usable, built_for="13.0", there=there) == expected


@pytest.mark.parametrize(
    ("setting", "built_for", "there", "told"),
    [
        ("auto", "13.0", ["0"], r"learner\.device = 'auto'.*1 NVIDIA card.*built for CUDA 13\.0.*Update the driver"),
        ("auto", None, ["0", "1"], r"2 NVIDIA card.*a build for CPUs.*Install the extra `gpu`"),
        ("cuda", None, [], r"learner\.device = 'cuda'.*no NVIDIA card that it may use.*set learner\.device to 'cpu'"),
    ],
)
def test_a_card_that_cannot_be_used_is_refused_with_the_way_out(
    setting: str, built_for: str | None, there: list[str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        choose_device(setting, "learner.device", usable=False, built_for=built_for, there=there)


MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sat Aug 17 00:00:00 UTC 2024\nGCC version:  gcc 12\n"
OPEN_MODULE = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build\n"


@pytest.mark.parametrize("text", [MODULE, OPEN_MODULE])
@pytest.mark.parametrize(
    ("driver", "built_for", "old"),
    [
        ("535.104.05", "13.0", True),
        ("579.99", "13.0", True),
        ("580.65.06", "13.0", False),
        ("610.1", "13.1", False),
        ("535.104.05", "12.8", False),
        ("470.82.01", "12.8", True),
        ("470.82.01", None, False),
        ("470.82.01", "14.0", False),  # of which nothing is known yet
    ],
)
def test_a_driver_that_is_too_old_is_one_sentence_for_all_cards(
    text: str, driver: str, built_for: str | None, old: bool, tmp_path: Path
) -> None:
    version = tmp_path / "version"
    version.write_text(text.format(driver))
    assert driver_version(version) == driver
    told = old_driver(built_for, ["nvidia0", "nvidia1"], version)
    assert bool(told) == old
    assert not old or f"is {driver}" in told
    assert not old or "none of its 2 card(s) (nvidia0, nvidia1)" in told
    assert old_driver(built_for, [], version) == ""


@pytest.mark.parametrize("content", [None, "", "no numbers"])
def test_a_driver_that_nothing_is_known_of_is_none(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "version").write_text(content)
    assert driver_version(tmp_path / "version") is None
