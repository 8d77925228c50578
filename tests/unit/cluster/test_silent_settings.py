"""No setting is without effect in silence: each is in the table of those that another one switches off, or acts always."""

from pathlib import Path

import pytest

from cluster.commands.summary import show_plan
from cluster.config.run_config import RunConfig, dump_config, load_config
from cluster.config.setting_names import leaf_settings
from cluster.config.silent_settings import silent_lines, silent_settings
from cluster.config.without_effect import RULES, Rule
from cluster.watch.terminal import into
from contracts.errors import ConfigError
from memory_service.profiles import OF_THE_BONUS

SETTINGS = dict(leaf_settings(RunConfig))

ALWAYS = {
    "run": "name directory seed",
    "model": "name",
    "task": "kind seed num_train answer_form system_prompt worked_examples max_prompt_tokens environment rewards scorer "
    "verifier_processes verifier_timeout_s",
    "actors": "engine rollouts_per_group temperature max_new_tokens dtype torch_threads lease_deadline_s probe_tolerance pools",
    "memory": "profile",
    "learner": "num_updates max_policy_lag dtype torch_threads advantage overlong lora_targets",
    "cluster": "groups_per_batch lease_attempts stop_after_failures checkpoint_every_updates checkpoints_kept "
    "adapters_on_disk tensorboard object_store_bytes min_workers worker_restarts worker_start_s part_restarts "
    "learner_call_s memory_call_s shared_run_directory env log_level autoscale.enabled",
    "eval": "problems",
    "supervision": "start_s heartbeat_s progress_s run_restarts",
    "resources": "enabled",
    "notify": "urls command",
}
"""By section. lora_targets and overlong are read by both learners."""


def in_a_row(name: str) -> bool:
    return any(rule.covers(name) for rule in RULES)


def is_an_alarm(name: str) -> bool:
    return name.startswith("alarms.") and isinstance(SETTINGS[name].default, str)


def test_every_setting_is_in_the_table_or_acts_always() -> None:
    always = {f"{section}.{name}" for section, names in ALWAYS.items() for name in names.split()}
    assert always <= SETTINGS.keys(), "names of settings that are gone"
    left = [name for name in SETTINGS if name not in always and not in_a_row(name) and not is_an_alarm(name)]
    assert left == [], "put a new setting into a row of without_effect.py, or here"
    twice = [name for name in always if in_a_row(name)]
    assert set(twice) <= {"learner.lora_targets"}, "said to act always, and in the table"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.switch)
def test_a_row_names_settings_that_there_are(rule: Rule) -> None:
    for key in rule.keys:
        assert any(Rule((key,), "", lambda _: True).covers(name) for name in SETTINGS), key
    assert set(rule.without) <= SETTINGS.keys()


PAYS = ("memory.profile=memr",)
FILE = ("task.kind=file", "task.path=rows.jsonl")
HUB = ("task.kind=file", "task.hub_dataset=o/d")
SCRIPTED = ("model.name=scripted", "actors.engine=scripted")
VLLM = ("actors.engine=vllm",)
CASES: list[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = [
    (
        ("memory.profile=off",),
        PAYS,
        (
            *("memory.window=7", "memory.warmup=3", "memory.variant=memory_r", "memory.late_policy=zero"),
            *("memory.encoder=hash:64", "memory.max_queries=5", "memory.torch_threads=2", "memory.mix=capped"),
        ),
    ),
    (
        ("memory.profile=remember",),
        PAYS,
        (
            *("memory.window=7", "memory.warmup=3", "memory.warmup_unit=distinct_failed_questions"),
            *("memory.variant=memory_r", "memory.late_policy=zero", "memory.deadline_s=5.0", "memory.neighbours_k=2"),
            *("memory.explore_when_empty=0.5", "memory.exploit_form=one_minus_scaled_distance"),
            *("memory.exploit_formula=a.py:f", "memory.explore_formula=knn_entropy"),
            *("memory.normaliser_eps=0.1", "memory.normaliser_range_floor=0.1", "memory.raw_decimals=3"),
        ),
    ),
    (
        (*PAYS, "memory.variant=memory_r"),
        PAYS,
        (
            "memory.explore_weight=2.0",
            "memory.explore_decay_steps=5.0",
            "memory.warmup=3",
            "memory.explore_formula=a.py:f",
        ),
    ),
    ((*PAYS, "memory.explore_weight=0.0"), PAYS, ("memory.explore_decay_steps=5.0", "memory.warmup=3")),
    (
        (*PAYS, "memory.exploit_weight=0.0"),
        PAYS,
        ("memory.exploit_form=one_minus_scaled_distance", "memory.exploit_formula=a.py:f"),
    ),
    (PAYS, (*PAYS, "memory.key=first_of_batch"), ("memory.key_batch_groups=4",)),
    ((*PAYS, "memory.mix=raw"), PAYS, ("memory.cap_share=0.3",)),
    ((*PAYS, "memory.no_signal=normalised"), PAYS, ("memory.no_signal_weight=2.0",)),
    (("memory.response_span=full",), (), ('memory.reasoning_tags=["<a>", "</a>"]',)),
    (
        ("memory.encoder=hash:64",),
        (),
        ("memory.encoder_dtype=bfloat16", "memory.device=cuda"),
    ),
    ((), ("memory.device=cuda",), ("memory.gpus=0.5",)),
    ((), SCRIPTED, ("actors.scripted.accuracy=0.1", "learner.scripted.update_s=1.0")),
    ((), VLLM, ("actors.vllm.max_num_seqs=8", "actors.vllm.enforce_eager=true")),
    (VLLM, (), ("actors.lora_path=unmerged", "actors.max_batch_rows=8")),
    (('actors.pools=[{name="a", num_workers=1}]',), (), ("actors.num_workers=3",)),
    (("actors.device=cpu",), (), ("actors.gpus_per_worker=0.5",)),
    ((*VLLM, "actors.device=cpu"), VLLM, ("actors.vllm.gpu_memory_utilization=0.5", "actors.vllm.enforce_eager=true")),
    (FILE, (), ("task.max_operand=9",)),
    ((), ("task.kind=reasoning_gym",), ("task.generator=gcd", "task.generator_params={max=3}")),
    ((), FILE, ("task.question_field=q", "task.answer_field=a", "task.id_field=i", "task.held_out_path=h.jsonl")),
    (FILE, HUB, ("task.hub_config=c", "task.hub_split=s", "task.hub_held_out_split=t")),
    ((*FILE, "task.held_out_path=h.jsonl"), FILE, ("task.held_out_share=0.3",)),
    ((*HUB, "task.hub_held_out_split=test"), HUB, ("task.held_out_share=0.3",)),
    ((), ("task.environment=retry",), ("task.max_turns=5",)),
    ((), ("task.kind=mine.py:Task",), ("task.environment_timeout_s=5.0",)),
    (("learner.device=cpu",), (), ("learner.gpus=0.5",)),
    ((), ("learner.kl_weight=0.1",), ("learner.kl_estimator=k3", "learner.kl_reference=moving_average")),
    (
        ("learner.kl_weight=0.1",),
        ("learner.kl_weight=0.1", "learner.kl_reference=moving_average"),
        ("learner.moving_average_decay=0.5",),
    ),
    ((), ("learner.overlong=penalty",), ("learner.overlong_penalty=0.1",)),
    (("learner.loss=cispo",), (), ("learner.clip_low=0.1",)),
    ((), ("eval.pass_at_k=4",), ("eval.pass_at_k_problems=9",)),
    ((), ("cluster.autoscale.enabled=true",), ("cluster.autoscale.max_workers=4",)),
    (("resources.enabled=false",), (), ("resources.stop_free_bytes=5", "resources.sample_interval_s=5.0")),
    ((), ('notify.command=["true"]',), ('notify.events=["stop"]',)),
]
"""(what switches off, what switches on, what then changes nothing or something)."""


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    file = tmp_path / "c.toml"
    file.write_text("")
    return file


@pytest.mark.parametrize(("off", "on", "settings"), CASES, ids=lambda value: " ".join(value))
def test_what_is_switched_off_is_refused_on_the_command_line_and_taken_where_it_acts(
    off: tuple[str, ...], on: tuple[str, ...], settings: tuple[str, ...], empty: Path
) -> None:
    for setting in settings:
        key = setting.partition("=")[0]
        with pytest.raises(ConfigError, match=rf"{key}.*(would change nothing, as|would change nothing: profile)"):
            load_config(empty, [*off, setting])
        assert load_config(empty, [*on, setting])


def test_every_row_has_a_case() -> None:
    """But the rows that are said only."""
    keys = {setting.partition("=")[0] for _, _, settings in CASES for setting in settings}
    assert [rule.switch for rule in RULES if rule.refused and not any(rule.covers(key) for key in keys)] == []


def shown(config: RunConfig, tmp_path: Path) -> str:
    with (tmp_path / "shown").open("w+") as file:
        show_plan(into(file), config)
        file.seek(0)
        return file.read()


def test_what_a_file_says_in_vain_is_said_by_the_plan_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[memory]\nprofile = "memr"\nwindow = 7\nwarmup = 3\n[eval]\npass_at_k_problems = 9\n')
    told = shown(load_config(file, ["memory.profile=off"]), tmp_path)
    assert "memory.window, memory.warmup: no effect, as memory.profile = 'off' keeps no memory" in told
    assert "eval.pass_at_k_problems: no effect, as eval.pass_at_k = 0" in told
    assert "window" not in shown(load_config(file), tmp_path)


def test_a_stored_run_of_any_profile_has_nothing_to_say_of_what_its_profile_filled_in(empty: Path) -> None:
    """config.toml of a run names every setting."""
    for profile in ("remember", "memr", "paper", "released_code", "off"):
        stored = empty.with_name("stored.toml")
        stored.write_text(dump_config(load_config(empty, [f"memory.profile={profile}"])))
        assert silent_lines(load_config(stored)) == [], profile


def test_a_stored_run_that_holds_such_settings_is_still_read(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[memory]\nprofile = "off"\nwindow = 7\n')
    (tmp_path / "manifest.json").touch()
    assert load_config(file, ["cluster.log_level=debug"]).memory.window == 7


def test_settings_of_a_pool_that_belong_to_another_engine_are_told(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        '[[actors.pools]]\nname = "a"\nnum_workers = 1\n[actors.pools.vllm]\nmax_num_seqs = 8\n'
        '[[actors.pools]]\nname = "b"\nnum_workers = 1\nengine = "vllm"\nmax_batch_rows = 8\n'
    )
    found = [str(silent) for silent in silent_settings(load_config(file))]
    assert found == [
        "actors.pools.vllm: no effect, as the workers of pool 'a' have the engine 'transformers'",
        "actors.pools.max_batch_rows: no effect, as the workers of pool 'b' have the engine 'vllm'",
    ]


def test_the_bonus_settings_that_were_refused_before_are_in_the_table() -> None:
    row = next(rule for rule in RULES if "no bonus is paid" in rule.switch)
    assert all(row.covers(f"memory.{name}") for name in OF_THE_BONUS)


def test_what_a_scripted_run_ignores_is_said_and_not_refused(empty: Path) -> None:
    config = load_config(empty, [*SCRIPTED, "learner.learning_rate=0.5", "learner.lora_r=4"])
    assert any("nobody samples with" in line and "learning_rate" in line for line in silent_lines(config))


def test_a_run_without_evaluation_says_what_of_it_does_not_act(empty: Path) -> None:
    """A quick try adds eval.problems=0 to a line that has more of [eval]."""
    config = load_config(empty, ["eval.problems=0", "eval.every_updates=3", "eval.pass_at_k=4"])
    assert silent_lines(config) == [
        "eval.every_updates, eval.pass_at_k: no effect, as eval.problems = 0 turns evaluation off"
    ]


def test_what_is_off_beside_what_is_off_is_no_contradiction(empty: Path) -> None:
    assert load_config(empty, ["eval.problems=0", "eval.every_updates=0", "memory.profile=off", "memory.warmup=0"])


def test_the_plan_names_variables_of_addresses_that_are_not_set(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IS_SET", "json://127.0.0.1/secret")
    monkeypatch.delenv("NOT_SET", raising=False)
    told = shown(load_config(empty, ['notify.urls=["$IS_SET", "$NOT_SET"]']), tmp_path)
    assert "note: notify.urls[1] is $NOT_SET, which this environment does not have: no notice is sent there" in told
    assert "IS_SET, which" not in told.replace("$NOT_SET, which", "")
