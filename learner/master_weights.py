"""The adapter's float32 weights, gradients and AdamW moments; the model holds copies in its own dtype.

    model parameter (bfloat16) --backward--> gradient --hook, at once--> float32 master gradient (sums micro-batches)
                    ^                                                           |
                    +------------------ copy after the update ------ AdamW on the float32 master

A bfloat16 sum over micro-batches or a bfloat16 weight would lose updates of 2^-8 of its size. In float32 the path is
the same.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from contracts.errors import BadNumbersError
from learner.config import LearnerSettings


class MasterWeights:
    """Owns what the optimiser changes. `parameters`: the model's adapter parameters by name, in a fixed order."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: LearnerSettings) -> None:
        self._parameters = dict(parameters)
        self._weights = {name: p.detach().to(torch.float32, copy=True) for name, p in self._parameters.items()}
        for name, master in self._weights.items():
            master.grad = torch.zeros_like(master)
            self._parameters[name].register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                _add_to(master.grad)
            )
        self._optimizer = torch.optim.AdamW(
            list(self._weights.values()),
            lr=settings.learning_rate,
            betas=(settings.adam_beta1, settings.adam_beta2),
            weight_decay=settings.weight_decay,
        )

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Yields name and accumulated float32 gradient of every adapter tensor: the tensors themselves, no copies."""
        for name, master in self._weights.items():
            assert master.grad is not None
            yield name, master.grad

    def zero_gradients(self) -> None:
        for _, gradient in self.gradients():
            gradient.zero_()

    def grad_norm(self) -> float:
        """L2 norm over all of the adapter. Raises BadNumbersError naming the first tensor that is not finite."""
        norms = torch.stack([torch.linalg.vector_norm(gradient) for _, gradient in self.gradients()])
        finite = torch.isfinite(norms)
        if not finite.all():
            name = list(self._weights)[int((~finite).to(torch.int8).argmax())]
            raise BadNumbersError(
                f"the gradient of {name} is not finite; the weights are unchanged. Lower learner.learning_rate or "
                "learner.importance_cap, or train in learner.dtype = 'float32'"
            )
        return float(torch.linalg.vector_norm(norms))

    def update(
        self, learning_rate: float, grad_norm: float, max_grad_norm: float, max_relative_change: float = math.inf
    ) -> float:
        """Clip, step, write back to the model; returns the L2 norm of the change.

        Raises BadNumbersError, with old weights and moments back in place, where the new weights are not finite or the
        change is larger than `max_relative_change` times the norm of the old ones.
        """
        before = {name: tensor.clone() for name, tensor in self.state().items()}
        if grad_norm > max_grad_norm:
            for _, gradient in self.gradients():
                gradient.mul_(max_grad_norm / grad_norm)
        self._optimizer.param_groups[0]["lr"] = learning_rate
        self._optimizer.step()
        old = {name: before[f"weight/{name}"] for name in self._weights}
        delta_norm = _norm(master - old[name] for name, master in self._weights.items())
        limit = max_relative_change * _norm(old.values())
        if not (math.isfinite(delta_norm) and delta_norm <= limit):
            worst = self._worst_change(old)
            self.load_state(before)
            raise BadNumbersError(
                f"the update would change the adapter by {delta_norm:.3g} (limit {limit:.3g} = "
                f"{max_relative_change:g} x its norm), most in {worst}; the weights are unchanged. Lower "
                "learner.learning_rate"
            )
        self.write_to_model()
        return delta_norm

    def _worst_change(self, old: Mapping[str, Tensor]) -> str:
        """The first tensor that is not finite, else the one that changed most."""
        changes = {name: float(torch.linalg.vector_norm(m - old[name])) for name, m in self._weights.items()}
        return next((n for n, c in changes.items() if not math.isfinite(c)), max(changes, key=lambda n: changes[n]))

    def write_to_model(self, weights: Mapping[str, Tensor] | None = None) -> None:
        """Round the masters, or `weights` in their place, into the model's parameters."""
        with torch.no_grad():
            for name, weight in (weights or self._weights).items():
                self._parameters[name].copy_(weight)

    def copies(self) -> dict[str, Tensor]:
        return {name: master.clone() for name, master in self._weights.items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, master in self._weights.items():
            master.copy_(weights[name])
        self.write_to_model()

    def state(self) -> dict[str, Tensor]:
        """Weights and moments as flat named tensors: weight/<name>, exp_avg/<name>, exp_avg_sq/<name>, step/<name>."""
        tensors = {f"weight/{name}": master for name, master in self._weights.items()}
        for name, master in self._weights.items():
            for kind, value in self._optimizer.state.get(master, {}).items():
                tensors[f"{kind}/{name}"] = value
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `state`. Raises ValueError naming what differs."""
        self._check_fit(tensors)
        self.load_weights({name: tensors[f"weight/{name}"] for name in self._weights})
        self._optimizer.state.clear()
        for name, master in self._weights.items():
            moments = {kind: tensors.get(f"{kind}/{name}") for kind in ("step", "exp_avg", "exp_avg_sq")}
            if all(value is not None for value in moments.values()):
                self._optimizer.state[master] = {kind: v.clone() for kind, v in moments.items() if v is not None}

    def _check_fit(self, tensors: Mapping[str, Tensor]) -> None:
        """Weights must be there; moments and average may be, in the same shape."""
        for name, master in self._weights.items():
            shapes = {f"{kind}/{name}": master.shape for kind in ("weight", "exp_avg", "exp_avg_sq", "average")}
            for stored_name, shape in (shapes | {f"step/{name}": torch.Size(())}).items():
                stored = tensors.get(stored_name)
                if stored is None and not stored_name.startswith("weight/"):
                    continue
                if stored is None or stored.shape != shape or stored.dtype != torch.float32:
                    found = "missing" if stored is None else f"{stored.dtype} of shape {tuple(stored.shape)}"
                    raise ValueError(
                        f"checkpoint does not fit this adapter: {stored_name} is {found}, expected float32 of shape "
                        f"{tuple(shape)}; resume with the learner.lora_* settings and model of the run that wrote it"
                    )
                if not bool(torch.isfinite(stored).all()):
                    raise ValueError(f"checkpoint holds numbers that are not finite: {stored_name}")


def _norm(tensors: Iterable[Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors])))


def _add_to(total: Tensor) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        if parameter.grad is not None:
            total.add_(parameter.grad)
            parameter.grad = None

    return hook
