"""From resources and configuration to bundles: what fits, what is short and which number to change."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.config.run_config import RunConfig, load_config
from cluster.launch.nodes import refuse_old_driver, refuse_uncounted_cards, resources_of, this_machine, usable_cores
from cluster.launch.placement import Node, Placement, place, placement_rows
from contracts.errors import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parents[3] / "configs").glob("*.toml"))


def config(**sections: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate({"model": {"name": "m"}} | sections)


def nodes(count: int, gpus: int, *, cpus: float = 64, resources: frozenset[str] = frozenset()) -> list[Node]:
    return [Node(f"n{i}", cpus, float(gpus), resources=resources) for i in range(count)]


def gpus_by_part(placement: Placement) -> dict[str, tuple[int, float]]:
    return {bundle.part: (bundle.count, bundle.gpus) for bundle in placement.bundles}


def test_a_laptop_without_gpu_runs_everything_on_the_cpu_and_is_told_that_threads_are_shared() -> None:
    found = place(config(), nodes(1, 0, cpus=2))
    assert gpus_by_part(found) == {"learner": (1, 0), "memory": (1, 0), "worker": (1, 0)}
    assert found.shortages == ()
    assert found.notes == ("CPU oversubscribed: 5 threads on 2 cores, slower with the same results",)


@pytest.mark.parametrize(
    ("cores", "told"), [(3, ()), (2, ("CPU oversubscribed: 3 threads on 2 cores, slower with the same results",))]
)
def test_without_lag_learner_and_workers_take_turns_on_the_cores(cores: int, told: tuple[str, ...]) -> None:
    assert place(config(learner={"max_policy_lag": 0}), nodes(1, 0, cpus=cores)).notes == told


def test_one_gpu_is_shared_by_learner_and_workers_that_said_nothing_of_gpus() -> None:
    found = place(config(actors={"num_workers": 2}), nodes(1, 1))
    assert gpus_by_part(found)["learner"] == (1, round(1 / 3, 4))
    assert gpus_by_part(found)["worker"] == (2, round(1 / 3, 4))
    assert found.shortages == ()


def test_eight_gpus_go_to_one_learner_and_six_workers() -> None:
    found = place(config(actors={"engine": "vllm", "num_workers": 6}), nodes(2, 4))
    assert gpus_by_part(found) == {"learner": (1, 1), "memory": (1, 0), "worker": (6, 1)}
    assert found.shortages == ()


def test_a_shortage_says_what_is_needed_what_is_there_and_which_number_to_change() -> None:
    [shortage] = place(config(actors={"engine": "vllm", "num_workers": 3}), nodes(1, 2)).shortages
    assert shortage.startswith("needs 4 GPUs (learner: 1 x 1, worker: 3 x 1), the cluster has 2")
    assert "lower the workers of 'worker' to 1" in shortage


def test_a_parallel_worker_needs_its_gpus_on_one_node() -> None:
    parallel = {"engine": "vllm", "vllm": {"tensor_parallel_size": 4}}
    [shortage] = place(config(actors=parallel), nodes(4, 2)).shortages
    assert "needs 4 GPU and 2 CPU on one node, the largest has 2 GPUs" in shortage
    assert "tensor_parallel_size" in shortage
    assert place(config(actors=parallel), [*nodes(1, 4), *nodes(1, 1)]).shortages == ()


def test_pools_go_where_their_resource_is() -> None:
    pools = [
        {"name": "big", "num_workers": 1, "node_resource": "A100"},
        {"name": "slow", "num_workers": 2, "engine": "transformers", "device": "cpu"},
    ]
    wanted = config(actors={"engine": "vllm", "pools": pools}, learner={"device": "cpu"})
    [shortage] = place(wanted, nodes(1, 1)).shortages
    assert "offers 'A100', and no node does" in shortage
    found = place(wanted, nodes(1, 1, resources=frozenset({"A100"})))
    assert found.shortages == ()
    assert gpus_by_part(found) == {"learner": (1, 0), "memory": (1, 0), "big": (1, 1), "slow": (2, 0)}
    assert ("big", "1 x 2 CPU, 1 GPU, on 'A100'") in placement_rows(found)


def test_on_several_nodes_cpus_must_be_there() -> None:
    [shortage] = place(config(actors={"num_workers": 5}, memory={"profile": "off"}), nodes(2, 0, cpus=4)).shortages
    assert "'worker' process needs 0 GPU and 2 CPU on one node; 3 of 5 fit" in shortage


def test_a_pool_without_gpus_leaves_gpu_nodes_to_those_that_need_them() -> None:
    pools = [
        {"name": "pinned", "num_workers": 2, "engine": "transformers", "device": "cpu", "node_resource": "R"},
        {"name": "gpu", "num_workers": 1, "device": "cuda"},
    ]
    wanted = config(actors={"engine": "vllm", "pools": pools}, learner={"device": "cpu"}, memory={"profile": "off"})
    both = frozenset({"R"})
    cluster = [Node("with", 4.0, 1.0, resources=both), Node("without", 4.0, 0.0, resources=both)]
    assert place(wanted, cluster).shortages == ()


def test_the_scripted_engine_needs_no_gpu() -> None:
    scripted = config(model={"name": "scripted"}, actors={"engine": "scripted"})
    assert {bundle.gpus for bundle in place(scripted, nodes(1, 8)).bundles} == {0}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_loads_and_is_placed_on_eight_gpus(path: Path) -> None:
    assert place(load_config(path), nodes(1, 8, cpus=96)).shortages == ()


@pytest.mark.parametrize(
    ("name", "gpus"), [("gsm8k_qwen0.5b_1gpu", 1), ("tina_1.5b_2gpu", 2), ("gsm8k_qwen0.5b_8gpu", 7), ("vllm_cpu", 0)]
)
def test_a_configuration_fits_the_gpus_in_its_name_and_no_fewer(name: str, gpus: int) -> None:
    loaded = load_config(next(path for path in CONFIGS if path.stem == name))
    assert place(loaded, nodes(1, gpus, cpus=96)).shortages == ()
    if gpus > 1:
        assert place(loaded, nodes(1, gpus - 1, cpus=96)).shortages != ()


@given(
    workers=st.integers(1, 12),
    share=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    sizes=st.lists(st.integers(0, 8), min_size=1, max_size=4),
)
def test_what_is_said_to_fit_really_fits(workers: int, share: float, sizes: list[int]) -> None:
    """An exhaustive count for equal bundles: whole GPUs per node, or shares per GPU."""
    actors = {"engine": "vllm", "device": "cuda", "num_workers": workers, "gpus_per_worker": share}
    cluster = [Node(f"n{i}", 64.0, float(gpus)) for i, gpus in enumerate(sizes)]
    found = place(config(actors=actors, learner={"device": "cpu"}), cluster)
    room = sum(gpus * int(1 / share) if share <= 1 else gpus // int(share) for gpus in sizes)
    assert (found.shortages == ()) == (workers <= room)


def test_idle_gpus_are_named_with_the_number_that_would_use_them() -> None:
    found = place(config(actors={"engine": "vllm", "num_workers": 1}), nodes(2, 8))
    assert found.shortages == ()
    assert found.notes == (
        "14 of 16 GPUs are idle (6 on n0, 8 on n1): raise actors.num_workers from 1 to 15, or ask for fewer GPUs",
    )


def test_the_advice_for_idle_gpus_fits_and_leaves_none_idle() -> None:
    raised = place(config(actors={"engine": "vllm", "num_workers": 15}), nodes(2, 8))
    assert (raised.shortages, raised.notes) == ((), ())


def test_idle_gpus_that_no_worker_fits_on_are_told_too() -> None:
    vllm = {"engine": "vllm", "num_workers": 1, "vllm": {"tensor_parallel_size": 4}}
    found = place(config(actors=vllm), nodes(1, 6))
    assert found.notes == (
        "1 of 6 GPUs are idle (1 on n0): no further 'worker' worker fits, which needs 4 GPU and 2 CPU on one node",
    )
    few_cpus = place(config(actors={"engine": "vllm", "num_workers": 1}), nodes(2, 8, cpus=7))
    assert "raise actors.num_workers from 1 to 5" in few_cpus.notes[0]


def test_gpus_that_nothing_asks_for_are_told() -> None:
    found = place(config(actors={"device": "cpu"}, learner={"device": "cpu"}), nodes(1, 2))
    assert found.notes[-1].startswith("2 of 2 GPUs are idle (2 on n0): nothing of this configuration runs on a GPU")


def test_pools_name_their_own_number() -> None:
    pools = [{"name": "big", "num_workers": 1, "engine": "vllm"}, {"name": "small", "num_workers": 1, "device": "cpu"}]
    found = place(config(actors={"pools": pools}), nodes(1, 4))
    assert "raise num_workers of pool 'big' from 1 to 3" in found.notes[-1]


def test_a_gpu_that_is_shared_is_not_idle() -> None:
    found = place(config(actors={"gpus_per_worker": 0.5}, learner={"gpus": 0.5}), nodes(1, 1))
    assert found.notes == ()


@given(st.integers(1, 4), st.integers(0, 8), st.integers(1, 20), st.sampled_from([1, 2, 4]))
def test_idle_gpus_and_used_ones_are_all_there_are(count: int, gpus: int, workers: int, parallel: int) -> None:
    vllm = {"engine": "vllm", "num_workers": workers, "vllm": {"tensor_parallel_size": parallel}}
    found = place(config(actors=vllm, learner={"gpus": 1.0}), nodes(count, gpus, cpus=1000))
    if not found.shortages and gpus:
        used = sum(bundle.gpus * bundle.count for bundle in found.bundles)
        idle = int(found.notes[-1].split()[0]) if found.notes and "idle" in found.notes[-1] else 0
        assert used + idle == count * gpus


def test_the_encoder_takes_the_share_of_a_gpu_that_it_is_given_and_none_by_itself() -> None:
    assert gpus_by_part(place(config(), nodes(1, 8)))["memory"] == (1, 0)
    found = place(config(memory={"device": "cuda", "gpus": 0.25}, learner={"gpus": 0.75}), nodes(1, 2))
    assert gpus_by_part(found)["memory"] == (1, 0.25)
    assert found.shortages == ()


def test_cards_that_ray_does_not_count_are_refused_unless_the_cpu_was_chosen() -> None:
    there = ["nvidia0"]
    with pytest.raises(
        ConfigError, match=r"1 NVIDIA card.*Ray counts none.*learner\.device and actors\.device = 'auto'"
    ):
        refuse_uncounted_cards(config(), nodes(1, 0), there)
    on_cpu = config(learner={"device": "cpu"}, actors={"device": "cpu"})
    for settings, found, cards in [(on_cpu, 0, there), (config(), 1, there), (config(), 0, [])]:
        refuse_uncounted_cards(settings, nodes(1, found), cards)


@pytest.mark.parametrize(("share", "told"), [(0.85, True), (0.5, False)])
def test_a_vllm_worker_that_wants_more_memory_than_its_share_of_the_card_is_told(share: float, told: bool) -> None:
    vllm = {"engine": "vllm", "gpus_per_worker": 0.5, "vllm": {"gpu_memory_utilization": share}}
    found = place(config(actors=vllm, learner={"gpus": 0.5}), nodes(1, 1))
    assert any("gpu_memory_utilization to 0.5 or less" in note for note in found.notes) is told


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_shipped_configuration_crowds_a_card(path: Path) -> None:
    found = place(load_config(path), nodes(1, 8))
    assert not any("gpu_memory_utilization" in note for note in found.notes)


def test_idle_gpus_beside_workers_without_one_are_told_as_such() -> None:
    """The learner does run on a GPU."""
    [note] = place(config(actors={"device": "cpu"}), nodes(1, 2)).notes
    assert note == (
        "1 of 2 GPUs are idle (1 on n0): of this configuration only learner run on a GPU, the workers do not: see actors.device"
    )
    nothing = place(config(actors={"device": "cpu"}, learner={"device": "cpu"}), nodes(1, 1)).notes
    assert "nothing of this configuration runs on a GPU" in nothing[0]


ENCODER_ON_A_CARD = {"device": "cuda"}


@pytest.mark.parametrize(
    ("gpus", "workers", "share"),
    [
        (1, 1, 0.45),  # what memory's tenth leaves, halved
        (2, 1, 0.9),  # each on its own card, memory beside one of them
        (2, 2, 0.5),  # memory's card has room for one half, the other for two
        (4, 3, 0.9),
        (1, 6, 0.1285),  # rounded down: 7 of 0.1286 would not fit
    ],
)
def test_an_encoder_on_the_card_of_the_learner_is_counted_before_the_rest_is_shared(
    gpus: int, workers: int, share: float
) -> None:
    found = place(config(actors={"num_workers": workers}, memory=ENCODER_ON_A_CARD), nodes(1, gpus))
    assert found.shortages == ()
    assert gpus_by_part(found) == {"learner": (1, share), "memory": (1, 0.1), "worker": (workers, share)}


@given(
    gpus=st.integers(1, 4),
    workers=st.integers(1, 40),
    memory=st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.9, 1.0]),
    cards_each=st.booleans(),
)
@example(gpus=3, workers=24, memory=0.5, cards_each=False)  # 25 shares of 0.1 and a half: three cards in all
def test_shares_of_a_card_are_what_ray_can_give(gpus: int, workers: int, memory: float, cards_each: bool) -> None:
    """Ray counts in ten-thousandths, and gives a share from a single card: an independent count in whole numbers."""
    where = nodes(gpus, 1) if cards_each else nodes(1, gpus)
    found = place(config(actors={"num_workers": workers}, memory={"device": "cuda", "gpus": memory}), where)
    units = sorted((round(b.gpus * 10_000) for b in found.bundles for _ in range(b.count)), reverse=True)
    assert all(abs(b.gpus * 10_000 - round(b.gpus * 10_000)) < 1e-6 for b in found.bundles)
    left = [10_000] * gpus
    for unit in units:
        room = [i for i in range(gpus) if left[i] >= unit]
        if not room:
            assert found.shortages, "said to fit"
            return
        left[min(room, key=lambda i: left[i])] -= unit
    if memory < 1 or gpus > 1:
        assert not any("GPUs (" in short for short in found.shortages)


@pytest.mark.parametrize(
    "text", ["0x8", "-1x8", "2x", "x8", "2x8x1", "2", "", "two", "1000000x8", "2x9999", "9" * 5000 + "x1"]
)
def test_nodes_that_cannot_be_are_refused_at_once(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--nodes .*for example 2x8"):
        resources_of(None, text)


def test_a_plan_for_very_many_nodes_ends() -> None:
    """Linear in the nodes: 10,000 nodes with a worker on each card take seconds, and took hours."""
    many = resources_of(None, "10000x8")
    found = place(config(actors={"engine": "vllm", "num_workers": 1}), many)
    assert "raise actors.num_workers from 1 to 79999" in found.notes[0]
    assert "and 9992 nodes more)" in found.notes[0]


def test_threads_are_counted_against_the_cores_that_this_process_may_use(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    whole = usable_cores(quota)
    assert whole == len(os.sched_getaffinity(0))
    quota.write_text("max 100000\n")
    assert usable_cores(quota) == whole
    quota.write_text("50000 100000\n")
    assert usable_cores(quota) == 1
    assert this_machine().cpus == usable_cores()


def test_an_old_driver_is_told_once_with_every_setting_that_would_meet_it(tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 17\n")
    pools = [{"name": "a", "num_workers": 1}, {"name": "b", "num_workers": 1, "device": "cpu"}]
    both = config(actors={"pools": pools}, memory={"device": "cuda"})
    with pytest.raises(
        ConfigError, match=r"580 or newer.*set learner\.device and memory\.device and actors\.device of 'a' to 'cpu'"
    ):
        refuse_old_driver(both, ["nvidia0"], usable=False, built_for="13.0", version=version)
    refuse_old_driver(both, ["nvidia0"], usable=True, built_for="13.0", version=version)  # forward compatibility
    on_cpu = config(actors={"device": "cpu"}, learner={"device": "cpu"})
    refuse_old_driver(on_cpu, ["nvidia0"], usable=False, built_for="13.0", version=version)
