"""Lines in which a wrong sign, comparison or index, or a call left out, does real harm that no type check sees.

FILE: TESTS             below tests/unit/, the closest ones
- the line as it is     without its indentation, once in the file
+ the mutant
  what it would break
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
        head, *rest = block.splitlines()
        if [line[:2] for line in rest] != ["- ", "+ ", "  "] or ": " not in head:
            raise ValueError(f"no mutant, which is FILE: TESTS, a line that is, one that is not, what breaks:\n{block}")
        file, _, tests = head.partition(": ")
        paths = tuple(f"{TESTS}/{name}" for name in tests.split())
        mutants.append(Mutant(file, paths, *(line[2:] for line in rest)))
    return tuple(mutants)


MUTANTS = parse(
    r"""
cluster/record/resume.py: cluster/test_resume.py
- return [call for call in past.calls if call and call[-1].memory_version >= known]
+ return [call for call in past.calls if call and call[-1].memory_version > known]
  a call of one group right behind memory's snapshot is forgotten on resume

cluster/flow/scoring_queue.py: cluster/test_scoring_queue.py
- if self._waiting.pop(lease_id, None) is not None:
+ if self._waiting.pop(lease_id, scored) is not None:
  a group that went on late is delivered again when memory answers

cluster/flow/dispatcher.py: cluster/test_controller.py
- if evaluates:  # newer versions may have pushed this one out
+ if evaluates and alone:  # newer versions may have pushed this one out
  an evaluation asks for a version that the worker dropped for newer ones

actors/engines/torch_decoding/lora_paths.py: actors/test_lora_paths.py
- for path in self._base.keys() - weights.pairs.keys():
+ for path in weights.pairs.keys() - self._layers.keys():
  layers that this version does not adapt keep the weights of the one before

actors/engines/torch_decoding/lora_paths.py: actors/test_lora_paths.py
- blocks = [weights.scale * pair.b_OK.t() for pair in pairs.values()]
+ blocks = [pair.b_OK.t() for pair in pairs.values()]
  an adapter acts at another strength than the learner trains it at

storage/durable.py: storage/test_durable.py
- file.flush()
+ file.fileno()
  what still lies in the file's buffer is not on disk after its sync

cluster/record/run_log.py: cluster/test_run_log.py
- sync(self._file)
+ self._file.flush()
  a power cut takes rollouts and updates that a checkpoint counts on

cluster/record/run_log.py: cluster/test_run_log.py
- self.sync()
+ self._file.flush()
  a power cut leaves a hole before a later segment, and the run cannot be resumed

cluster/record/checkpoint.py: cluster/test_torn_checkpoint.py
- write_file(folder / MANIFEST, json.dumps(manifest, indent=1).encode())
+ (folder / MANIFEST).write_bytes(json.dumps(manifest, indent=1).encode())
  after a power cut the newest checkpoint has its name and an empty manifest

learner/checkpoint.py: learner/test_learner_checkpoint.py
- write_file(directory / TENSORS, payload)
+ (directory / TENSORS).write_bytes(payload)
  after a power cut the newest checkpoint has its name and half of its weights

learner/master_weights.py: learner/test_learner_step.py
- if not delta_norm <= limit:  # not finite, too
+ if delta_norm > limit:  # not finite, too
  weights that are no numbers are kept, published and saved

learner/master_weights.py: learner/test_learner_step.py
- parameter.grad = None
+ pass
  the second micro-batch adds the first one's gradient again

cluster/flow/publication.py: cluster/test_controller.py
- return self.state.step - self.state.step % every if every else 0
+ return self.state.step % every if every else 0
  the adapter of the newest checkpoint is deleted

learner/advantages.py: learner/test_advantages.py
- spread = float(rewards_G.std(ddof=1)) + GRPO_EPS
+ spread = float(rewards_G.std(ddof=0)) + GRPO_EPS
  GRPO's advantages are too large in small groups

learner/advantages.py: learner/test_advantages.py
- num_others = len(rewards_G) - 1
+ num_others = len(rewards_G)
  leave-one-out compares with a mean that is too small, so every rollout is pushed up

learner/advantages.py: learner/test_advantages.py
- return rewards_G - float(rewards_G.mean())
+ return rewards_G - float(np.median(rewards_G))
  Dr. GRPO's advantages do not add up to 0

learner/losses.py: learner/test_losses.py
- rises_too_far_N = (advantage_N > 0) & (ratio_N > 1 + clip_high)
+ rises_too_far_N = (advantage_N > 0) & (ratio_N > 1 + clip_low)
  rare tokens rise no further than with the narrow side, and entropy collapses

learner/losses.py: learner/test_losses.py
- falls_too_far_N = (advantage_N < 0) & (ratio_N < 1 - clip_low)
+ falls_too_far_N = (advantage_N < 0) & (ratio_N < 1 - clip_high)
  bad tokens are pushed down further than asked

learner/losses.py: learner/test_losses.py
- return TokenWeights(weight_N.clamp(max=cap), clipped_N, ratio_N > cap)
+ return TokenWeights(weight_N, clipped_N, ratio_N > cap)
  one token with a large ratio makes the whole update

learner/losses.py: learner/test_losses.py
- return sums_R / counts_R
+ return sums_R
  GSPO's ratio is the product over the rollout and not its geometric mean

learner/losses.py: learner/test_losses.py
- return _capped(ratio_N, ratio_N.clamp(max=1 + limits.clip_high), ratio_N > 1 + limits.clip_high, limits.cap)
+ return _capped(ratio_N, ratio_N.clamp(max=1 + limits.clip_low), ratio_N > 1 + limits.clip_high, limits.cap)
  CISPO cuts its weights at the lower side, which it does not have

learner/losses.py: learner/test_losses.py
- gap_N = reference_N - logprob_N
+ gap_N = logprob_N - reference_N
  the KL term is that of the other direction

learner/losses.py: learner/test_losses_oracle.py
- return weight_N * (gap_N.exp() - gap_N - 1 - gap_N * (logprob_N - logprob_N.detach()))
+ return weight_N * (gap_N.exp() - gap_N - 1 + gap_N * (logprob_N - logprob_N.detach()))
  the KL term pushes the policy away from its reference

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

learner/schedule.py: learner/test_learner_config.py
- return peak * shape((update - num_warmup) / (num_updates - num_warmup))
+ return peak * shape(update / num_updates)
  the decay begins in the middle of itself when the warm-up is over

memory_service/reading.py: memory_service/test_memory_oracle.py
- scaled_N = window.scale(-distances_N)
+ scaled_N = window.scale(distances_N)
  exploit pays for answers that are far from past successes

memory_service/intrinsic.py: memory_service/test_memory_oracle.py
- centre_D = successes_BD.astype(np.float64).mean(axis=0)
+ centre_D = np.median(successes_BD.astype(np.float64), axis=0)
  the distance is not the paper's

memory_service/intrinsic.py: memory_service/test_memory_oracle.py
- novelty_N: NDArray[np.float64] = (1.0 - (answers @ failures.T).max(axis=1)).round(decimals)
+ novelty_N: NDArray[np.float64] = (1.0 - (answers @ failures.T).min(axis=1)).round(decimals)
  a failure repeated word by word is novel

memory_service/normaliser.py: memory_service/test_memory_service.py
- self._values: deque[float] = deque(maxlen=window)
+ self._values: deque[float] = deque(maxlen=None)
  the first values of a run scale the rewards of all later ones

memory_service/intrinsic.py: memory_service/test_memory_service.py
- return bonus_N if cap is None else np.minimum(bonus_N, cap)
+ return bonus_N if cap is None else np.maximum(bonus_N, cap)
  the cap is what everybody gets at least

memory_service/reading.py: memory_service/test_memory_oracle.py
- if not settings.uses_explore or passed < settings.warmup:
+ if not settings.uses_explore or passed <= settings.warmup:
  the warm-up is one step too long

memory_service/episodes.py: memory_service/test_memory_service.py
- oldest = self._by_question.pop(next(iter(self._by_question)))
+ oldest = self._by_question.pop(next(reversed(self._by_question)))
  a full memory forgets what it has just learned

memory_service/ranking.py: memory_service/test_memory_oracle.py
- order = np.lexsort((ids_C, -np.round(cosines_C / _COSINE_GRAIN)))[:k]
+ order = np.lexsort((-ids_C, -np.round(cosines_C / _COSINE_GRAIN)))[:k]
  equal neighbours come in another order from one index than from the other

memory_service/service.py: memory_service/test_memory_service.py
- values = {name: term.read(item) for name, term in self._terms.items()}
+ values = {name: term.write_then_read(item) for name, term in self._terms.items()}
  a group is scored against its own answers

learner/credit.py: learner/test_bonus_rule.py
- weigh_alone = not terms.has_signal and rule.no_signal is NoSignal.CENTRED
+ weigh_alone = rule.no_signal is NoSignal.CENTRED
  the bonus replaces the task reward in every group

contracts/bonus_rule.py: learner/test_bonus_rule.py
- return self.from_version <= policy_version < self.until_version
+ return self.from_version < policy_version < self.until_version
  groups of the first version that memory pays for go on without its bonus

cluster/record/ledger.py: cluster/test_ledger.py
- LeaseStatus.IN_FLIGHT: {LeaseStatus.BUFFERED, LeaseStatus.DROPPED, LeaseStatus.FAILED},
+ LeaseStatus.IN_FLIGHT: {LeaseStatus.BUFFERED, LeaseStatus.TRAINED, LeaseStatus.DROPPED, LeaseStatus.FAILED},
  a group is booked as trained that never reached the buffer

cluster/record/ledger.py: cluster/test_ledger.py
- if counts.issued != booked or counts.in_flight != in_flight or counts.buffered != buffered:
+ if counts.issued != booked or counts.in_flight != in_flight:
  a group that the buffer lost is never missed

cluster/flow/rollout_buffer.py: cluster/test_rollout_buffer.py
- if policy_version + 1 + i // groups_per_batch - sampled_by > max_policy_lag:
+ if policy_version + i // groups_per_batch - sampled_by > max_policy_lag:
  a publication makes a group stale that is still under way

cluster/flow/admission.py: cluster/test_stages.py
- return not buffer_full and under_way < slots and counts.trained + under_way < num_groups
+ return not buffer_full and under_way <= slots and counts.trained + under_way < num_groups
  one group more is under way than the lag bound allows

cluster/flow/autoscale.py: cluster/test_autoscale.py
- if recent[-1].step - last_change_step < settings.cooldown_updates:
+ if recent[-1].step - last_change_step > settings.cooldown_updates:
  workers come and go before the last change could show

cluster/recovery/failure_policy.py: cluster/test_failure_policy.py
- recent = [f for f in failures if f.part is newest.part and now_s - f.at_s <= budget.window_s]
+ recent = [f for f in failures if f.part is newest.part and now_s - f.at_s >= budget.window_s]
  a part that dies at every start is restarted for ever

actors/adapter_cache.py: actors/test_rollout_worker.py
- surplus = sorted(v for v in self._held - newest if self._pins[v] == 0 and v != self._visitor)
+ surplus = sorted(v for v in self._held - newest if v != self._visitor)
  a version is unloaded while rollouts are sampled with it

actors/seeds.py: actors/test_actors_sampling.py
- return _hash63(f"{run_seed}\n{lease_id}\n{sample_index}\n{attempt}\n{problem_id}")
+ return _hash63(f"{run_seed}\n{lease_id}\n{attempt}\n{problem_id}")
  all rollouts of a group are the same answer

actors/engines/torch_decoding/sampling.py: actors/test_actors_sampling.py
- scaled_RV.div_(torch.where(greedy_R, torch.ones_like(temperatures_R), temperatures_R)[:, None])
+ scaled_RV.mul_(torch.where(greedy_R, torch.ones_like(temperatures_R), temperatures_R)[:, None])
  a high temperature samples as a low one

actors/proof.py: actors/test_proof.py
- return EXACT + times * _mean(np.abs(learner.rounded_N - learner.exact_N))
+ return times * (EXACT + _mean(np.abs(learner.rounded_N - learner.exact_N)))
  where nothing is rounded the limit is several times what it should be

tasks/compare_answers.py: tasks/test_tasks_answers.py tasks/test_tasks_answer_table.py
- return number.lowest
+ return True
  `7 + 12` is a right answer to "What is 7 + 12?"

tasks/problem_list.py: tasks/test_tasks_file.py tasks/test_tasks_load.py
- (c for c in train if question_hash(c.split_question) not in held_hashes),
+ (c for c in train if c.split_question not in held_hashes),
  problems that a held-out file has too are trained on

cluster/record/run_lock.py: cluster/test_run_lock.py
- if _locked(descriptor, fcntl.LOCK_EX):
+ if _locked(descriptor, fcntl.LOCK_SH):
  two processes write one run

cluster/record/run_log.py: cluster/test_run_log.py
- self._file.truncate(self._offset)
+ self._file.seek(self._offset)
  what comes after half a frame is lost to every later life

storage/durable.py: storage/test_durable.py
- return [line for line in data.split(b"\n")[:-1] if b"\0" not in line]
+ return [line for line in data.split(b"\n") if b"\0" not in line]
  half a line at the end of metrics.jsonl is read as a whole one
"""
)
