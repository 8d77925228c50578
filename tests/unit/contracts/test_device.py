"""No card that is there is passed over in silence."""

from pathlib import Path

import pytest

from contracts.device import cards, choose_device
from contracts.errors import ConfigError


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
