"""Lines in which a wrong sign, comparison or index, or a call left out, does real harm that no type check sees.

    FILE: TESTS             below tests/unit/, the closest ones
    - the line as it is     without its indentation, once in the file
    + the mutant            these three as often as there are mutants of FILE
      what it would break

benchmarks/mutants.py runs the tests of each; tests/unit/benchmarks/test_mutants.py keeps the lines true.
"""

from dataclasses import dataclass

TESTS = "tests/unit"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One line of one file, and what stands in its place. tests: files, by path below the root."""

    file: str
    tests: tuple[str, ...]
    before: str
    after: str
    breaks: str


def parse(table: str) -> tuple[Mutant, ...]:
    """Reads a table as above. Raises ValueError for a block that is none."""
    mutants = []
    for block in table.strip().split("\n\n"):
        head, *lines = block.splitlines()
        file, found, tests = head.partition(": ")
        if not found or not lines or [line[:2] for line in lines] != ["- ", "+ ", "  "] * (len(lines) // 3):
            raise ValueError(
                f"no mutants, which are FILE: TESTS, then a line, its mutant, what breaks; again:\n{block}"
            )
        paths = tuple(f"{TESTS}/{name}" for name in tests.split())
        texts = [line[2:] for line in lines]
        mutants += [Mutant(file, paths, *texts[i : i + 3]) for i in range(0, len(texts), 3)]
    return tuple(mutants)


MUTANTS = parse(
    r"""
learner/advantages.py: learner/test_advantages.py
- spread = float(rewards_G.std(ddof=1)) + GRPO_EPS
+ spread = float(rewards_G.std(ddof=0)) + GRPO_EPS
  GRPO's advantages are too large in small groups
- num_others = len(rewards_G) - 1
+ num_others = len(rewards_G)
  leave-one-out compares with a mean that is too small, so every rollout is pushed up
- return rewards_G - float(rewards_G.mean())
+ return rewards_G - float(np.median(rewards_G))
  Dr. GRPO's advantages do not add up to 0

learner/losses.py: learner/test_losses.py
- rises_too_far_N = (advantage_N > 0) & (ratio_N > 1 + clip_high)
+ rises_too_far_N = (advantage_N > 0) & (ratio_N > 1 + clip_low)
  rare tokens rise no further than with the narrow side, and entropy collapses
- return TokenWeights(weight_N.clamp(max=cap), clipped_N, ratio_N > cap)
+ return TokenWeights(weight_N, clipped_N, ratio_N > cap)
  one token with a large ratio makes the whole update
- return sums_R / counts_R
+ return sums_R
  GSPO's ratio is the product over the rollout and not its geometric mean
- return _capped(ratio_N, ratio_N.clamp(max=1 + limits.clip_high), ratio_N > 1 + limits.clip_high, limits.cap)
+ return _capped(ratio_N, ratio_N.clamp(max=1 + limits.clip_low), ratio_N > 1 + limits.clip_high, limits.cap)
  CISPO cuts its weights at the lower side, which it does not have

learner/losses.py: learner/test_losses_oracle.py
- return weight_N * (gap_N.exp() - gap_N - 1 - gap_N * (logprob_N - logprob_N.detach()))
+ return weight_N * (gap_N.exp() - gap_N - 1 + gap_N * (logprob_N - logprob_N.detach()))
  the KL term pushes the policy away from its reference

learner/credit.py: learner/test_bonus_rule.py
- weigh_alone = not terms.has_signal and rule.no_signal is NoSignal.CENTRED
+ weigh_alone = rule.no_signal is NoSignal.CENTRED
  the bonus replaces the task reward in every group

learner/credit.py: learner/test_credit.py
- in_loss_G=~cut_G if settings.overlong == "mask" else np.ones(len(rollouts), np.bool_),
+ in_loss_G=cut_G if settings.overlong == "mask" else np.ones(len(rollouts), np.bool_),
  with overlong = "mask" nothing but cut answers train

learner/packing.py: learner/test_packing.py learner/test_learner_step.py
- end = int(np.flatnonzero(rollout.policy_mask_T)[-1]) + 1
+ end = int(np.flatnonzero(rollout.policy_mask_T)[-1])
  the last token, which ends the answer, is never trained

learner/packed_layout.py: learner/test_shared_prefix.py
- own_N = self.start_of_R[table.row_N] + table.offset_N - 1
+ own_N = self.start_of_R[table.row_N] + table.offset_N
  each token is predicted from itself

learner/schedule.py: learner/test_learner_config.py
- return peak * (update + 1) / num_warmup
+ return peak * update / num_warmup
  the first update has learning rate 0

learner/master_weights.py: learner/test_learner_step.py
- if not (math.isfinite(delta_norm) and delta_norm <= limit):
+ if delta_norm > limit:
  weights that are no numbers are kept, published and saved

learner/checkpoint.py: learner/test_learner_checkpoint.py
- write_file(directory / TENSORS, payload)
+ (directory / TENSORS).write_bytes(payload)
  after a power cut the newest checkpoint has its name and half of its weights

memory_service/reading.py: memory_service/test_memory_oracle.py
- return np.clip(1.0 - (distances_N if scaled_N is None else scaled_N), 0.0, 1.0)
+ return np.clip(distances_N if scaled_N is None else scaled_N, 0.0, 1.0)
  exploit pays for answers that are far from past successes
- if not settings.uses_explore or passed < settings.warmup:
+ if not settings.uses_explore or passed <= settings.warmup:
  the warm-up is one step too long

memory_service/intrinsic.py: memory_service/test_memory_oracle.py
- unit: NDArray[_Float] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
+ unit: NDArray[_Float] = vectors / np.linalg.norm(vectors, axis=0, keepdims=True)
  the distance to past failures is no cosine: one that is repeated word by word is novel

memory_service/intrinsic.py: memory_service/test_memory_service.py
- return bonus_N if cap is None else np.minimum(bonus_N, cap)
+ return bonus_N if cap is None else np.maximum(bonus_N, cap)
  the cap is what everybody gets at least

memory_service/normaliser.py: memory_service/test_memory_service.py
- self._values: deque[float] = deque(maxlen=window)
+ self._values: deque[float] = deque(maxlen=None)
  the first values of a run scale the rewards of all later ones

memory_service/ranking.py: memory_service/test_memory_oracle.py
- order = np.lexsort((ids_C, -np.round(cosines_C / _COSINE_GRAIN)))[:k]
+ order = np.lexsort((-ids_C, -np.round(cosines_C / _COSINE_GRAIN)))[:k]
  equal neighbours come in another order from one index than from the other

memory_service/episodes.py: memory_service/test_memory_service.py
- oldest = self._by_question.pop(next(iter(self._by_question)))
+ oldest = self._by_question.pop(next(reversed(self._by_question)))
  a full memory forgets what it has just learned

memory_service/service.py: memory_service/test_memory_service.py
- values = {name: term.read(item) for name, term in self._terms.items()}
+ values = {name: term.write_then_read(item) for name, term in self._terms.items()}
  a group is scored against its own answers

memory_service/snapshot.py: memory_service/test_memory_snapshot.py
- sync_file(temporary / file)
+ (temporary / file).stat()
  after a power cut the newest checkpoint has its name and half of memory's vectors

actors/adapter_cache.py: actors/test_rollout_worker.py
- surplus = sorted(v for v in self._held - newest if self._pins[v] == 0 and v != self._visitor)
+ surplus = sorted(v for v in self._held - newest if v != self._visitor)
  a version is unloaded while rollouts are sampled with it

actors/engines/torch_decoding/lora_paths.py: actors/test_lora_paths.py
- for path in self._base.keys() - weights.pairs.keys():
+ for path in weights.pairs.keys() - self._layers.keys():
  layers that this version does not adapt keep the weights of the one before

actors/engines/torch_decoding/sampling.py: actors/test_actors_sampling.py
- scaled_RV.div_(torch.where(greedy_R, torch.ones_like(temperatures_R), temperatures_R)[:, None])
+ scaled_RV.mul_(torch.where(greedy_R, torch.ones_like(temperatures_R), temperatures_R)[:, None])
  a high temperature samples as a low one

actors/proof.py: actors/test_proof.py
- return EXACT + times * _mean(np.abs(learner.rounded_N - learner.exact_N))
+ return times * (EXACT + _mean(np.abs(learner.rounded_N - learner.exact_N)))
  where nothing is rounded the limit is several times what it should be

actors/seeds.py: actors/test_actors_sampling.py
- return _hash63(f"{run_seed}\n{lease_id}\n{sample_index}\n{attempt}\n{problem_id}")
+ return _hash63(f"{run_seed}\n{lease_id}\n{attempt}\n{problem_id}")
  all rollouts of a group are the same answer

tasks/compare_answers.py: tasks/test_tasks_answers.py tasks/test_tasks_answer_table.py
- return number.lowest
+ return True
  `7 + 12` is a right answer to "What is 7 + 12?"

tasks/problem_list.py: tasks/test_tasks_file.py tasks/test_tasks_arithmetic.py
- (c for c in train if question_hash(c.split_question) not in held_hashes),
+ (c for c in train if c.split_question not in held_hashes),
  problems that a held-out file has too are trained on
- rest = [c for c in ordered[num_examples:] if question_hash(c.split_question) not in taken]
+ rest = [c for c in ordered[num_examples:] if c.split_question not in taken]
  the twin of a worked example is trained on with its answer in the prompt

cluster/flow/admission.py: cluster/test_stages.py
- return not buffer_full and under_way < slots and counts.trained + under_way < num_groups
+ return not buffer_full and under_way <= slots and counts.trained + under_way < num_groups
  one group more is under way than the lag bound allows

cluster/flow/scaling_policy.py: cluster/test_autoscale.py
- if recent[-1].step - last_change_step < settings.cooldown_updates:
+ if recent[-1].step - last_change_step > settings.cooldown_updates:
  workers come and go before the last change could show

cluster/flow/dispatcher.py: cluster/test_controller.py
- if evaluates:  # newer versions may have pushed this one out
+ if evaluates and alone:  # newer versions may have pushed this one out
  an evaluation asks for a version that the worker dropped for newer ones

cluster/flow/publication.py: cluster/test_controller.py
- return self.state.step - self.state.step % every if every else 0
+ return self.state.step % every if every else 0
  the adapter of the newest checkpoint is deleted

cluster/flow/rollout_buffer.py: cluster/test_rollout_buffer.py
- if policy_version + 1 + i // groups_per_batch - sampled_by > max_policy_lag:
+ if policy_version + i // groups_per_batch - sampled_by > max_policy_lag:
  a publication makes a group stale that is still under way

cluster/flow/scoring_queue.py: cluster/test_scoring_queue.py
- if self._waiting.pop(lease_id, None) is not None:
+ if self._waiting.pop(lease_id, scored) is not None:
  a group that went on late is delivered again when memory answers

cluster/flow/staleness.py: cluster/test_stages.py
- ahead = len(self.queue.versions_under_way()) + len(self.scoring) + len(self.buffer)
+ ahead = len(self.queue.versions_under_way()) + len(self.buffer)
  groups sampled now are too old to train when memory is slow

cluster/flow/work_queue.py: cluster/test_work_queue.py
- self._waiting[lease.purpose].appendleft(lease)
+ self._waiting[lease.purpose].append(lease)
  leases of a worker that left wait behind younger ones

cluster/recovery/failure_policy.py: cluster/test_failure_policy.py
- recent = [f for f in failures if f.part is newest.part and now_s - f.at_s <= budget.window_s]
+ recent = [f for f in failures if f.part is newest.part and now_s - f.at_s >= budget.window_s]
  a part that dies at every start is restarted for ever

cluster/record/ledger.py: cluster/test_ledger.py
- LeaseStatus.IN_FLIGHT: {LeaseStatus.BUFFERED, LeaseStatus.DROPPED, LeaseStatus.FAILED},
+ LeaseStatus.IN_FLIGHT: {LeaseStatus.BUFFERED, LeaseStatus.TRAINED, LeaseStatus.DROPPED, LeaseStatus.FAILED},
  a group is booked as trained that never reached the buffer
- if counts.issued != booked or counts.in_flight != in_flight or counts.buffered != buffered:
+ if counts.issued != booked or counts.in_flight != in_flight:
  a group that the buffer lost is never missed

cluster/record/resume.py: cluster/test_resume.py
- return [call for call in past.calls if call and call[-1].memory_version >= known]
+ return [call for call in past.calls if call and call[-1].memory_version > known]
  a call of one group right behind memory's snapshot is forgotten on resume

cluster/record/checkpoint.py: cluster/test_torn_checkpoint.py
- write_file(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
+ (folder / MANIFEST).write_bytes(json.dumps(manifest, indent=1).encode())
  after a power cut the newest checkpoint has its name and an empty manifest

cluster/record/checkpoint_parts.py: cluster/test_broken_checkpoints.py
- if learner.policy_version != step:
+ if learner.policy_version > step:
  a run resumes with a learner that lacks updates the books call trained

cluster/record/adapter_registry.py: cluster/test_adapter_registry.py
- write_file(temporary / name, data)
+ (temporary / name).write_bytes(data)
  after a power cut an adapter that workers sampled with is empty on disk

cluster/record/run_log.py: cluster/test_run_log.py
- sync(self._file)
+ self._file.flush()
  a power cut takes rollouts and updates that a checkpoint counts on
- self.sync()
+ self._file.flush()
  a power cut leaves a hole before a later segment, and the run cannot be resumed
- self._file.truncate(self._offset)
+ self._file.seek(self._offset)
  what comes after half a frame is lost to every later life

cluster/record/run_lock.py: cluster/test_run_lock.py
- if _locked(descriptor, fcntl.LOCK_EX):
+ if _locked(descriptor, fcntl.LOCK_SH):
  two processes write one run

storage/durable.py: storage/test_durable.py
- file.flush()
+ file.fileno()
  what still lies in the file's buffer is not on disk after its sync
- return [line for line in data.split(b"\n")[:-1] if b"\0" not in line]
+ return [line for line in data.split(b"\n") if b"\0" not in line]
  half a line at the end of metrics.jsonl is read as a whole one
"""
)
