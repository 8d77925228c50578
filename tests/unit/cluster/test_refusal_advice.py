"""A refused version comes with advice for its own cause, also after it travelled between processes."""

import pickle
from pathlib import Path

import pytest

from contracts.errors import ProofError, RefusalCause, RunStopped, cause_of_refusal
from tests.fakes import FakeWorker
from tests.harness import Run, make_config

TOLERANCE = "probe_tolerance"


@pytest.mark.parametrize("cause", list(RefusalCause))
def test_the_cause_survives_pickling(cause: RefusalCause) -> None:
    found = pickle.loads(pickle.dumps(ProofError("w0 refuses it", cause)))  # noqa: S301  its own bytes
    assert (str(found), found.cause) == ("w0 refuses it", cause)


def test_an_artifact_that_does_not_fit_is_no_matter_of_rounding() -> None:
    assert cause_of_refusal(ValueError("policy version 3 is abc here and def in the adapter")) is RefusalCause.IDENTITY


@pytest.mark.parametrize(
    ("refusal", "advice", "tolerance"),
    [
        (ProofError("log-probs differ by 0.3"), 'actors.dtype = "float32"', True),
        (ProofError("chat template is a here and b there", RefusalCause.IDENTITY), "model folder", False),
        (ProofError("the bytes hash to 12", RefusalCause.BYTES), "damaged network", False),
        (ValueError("version 1 is abc here"), "model folder", False),
    ],
)
async def test_a_stop_names_what_to_do_about_its_cause(
    tmp_path: Path, refusal: Exception, advice: str, tolerance: bool
) -> None:
    worker = FakeWorker("w0", refuse=lambda version: refusal if version == 1 else None)
    run = Run(make_config(tmp_path, updates=3), workers=[worker])
    with pytest.raises(RunStopped) as stopped:
        await run.run()
    assert advice in str(stopped.value)
    assert (TOLERANCE in str(stopped.value) or "tolerance or" in str(stopped.value)) is tolerance
    [first, _] = [line for line in run.lines("events.jsonl") if line["event"] == "version_refused"]
    assert first["cause"] == cause_of_refusal(refusal)
