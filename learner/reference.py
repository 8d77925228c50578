"""The policy that the KL term holds on to: the base model, or a moving average of the adapter.

The average is theta_ref <- m theta_ref + (1 - m) theta after every update, in float32, beside the one copy of the base
weights; it is written into the model for the reference forward and out again. m = 1 stays at version 0, which is the
base model; m = 0 is the policy itself (KL 0).
"""

from collections.abc import Mapping

from torch import Tensor

from learner.config import LearnerSettings
from learner.master_weights import MasterWeights
from learner.packing import MicroBatch
from learner.ports import Policy


class Reference:
    """Log-probs under the reference; `average` is None where the reference is the base model."""

    def __init__(self, policy: Policy, masters: MasterWeights, settings: LearnerSettings) -> None:
        self._policy, self._masters = policy, masters
        self._decay = settings.moving_average_decay
        wants_average = settings.kl_weight > 0 and settings.kl_reference == "moving_average"
        self.average: dict[str, Tensor] | None = masters.copies() if wants_average else None

    def logprobs(self, batch: MicroBatch) -> Tensor:
        """[N] float32, no gradient. Call before the policy's forward: it changes the model's weights for a moment."""
        if self.average is None:
            with self._policy.reference():
                return self._policy.logprobs(batch)
        self._masters.write_to_model(self.average)
        try:
            return self._policy.logprobs(batch)
        finally:
            self._masters.write_to_model()

    def follow(self) -> None:
        """One step of the moving average, after the update."""
        if self.average is None:
            return
        for name, weight in self._masters.copies().items():
            self.average[name].lerp_(weight, 1 - self._decay)

    def state(self) -> dict[str, Tensor]:
        return {f"average/{name}": tensor for name, tensor in (self.average or {}).items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """A checkpoint without an average (written with another kl_reference) starts one at its weights."""
        if self.average is not None:
            weights = self._masters.copies()
            self.average = {name: tensors.get(f"average/{name}", weights[name]).clone() for name in weights}
