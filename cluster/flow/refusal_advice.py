"""What to do about a version that nobody proves, by the cause that the last refusal names. No I/O."""

from contracts.errors import RefusalCause, cause_of_refusal

_MEANS = {
    RefusalCause.ROUNDING: (
        "the bytes are the same for every worker, so this is the proof's tolerance or the learner's own numbers, and no "
        "worker's fault"
    ),
    RefusalCause.IDENTITY: (
        "workers and learner do not hold the same model, chat template or artifact, which no tolerance changes, and no one "
        "worker's fault"
    ),
    RefusalCause.BYTES: "what arrives at the workers is not what the learner published, and no one worker's fault",
}
_DO = {
    RefusalCause.ROUNDING: (
        'to get past this version, resume with --override and actors.dtype = "float32" (smaller rounding), or a larger '
        "actors.probe_tolerance if you trust the numbers above"
    ),
    RefusalCause.IDENTITY: (
        "before that, give every node the model folder (weights, tokenizer, chat template) that the learner has, and the same "
        "installation of memr"
    ),
    RefusalCause.BYTES: (
        "before that, look for a damaged network, memory or disk: events.jsonl shows which workers refused, the logs of Ray "
        "which nodes they ran on"
    ),
}


def what_it_means(refusal: Exception) -> str:
    """Returns one sentence on what kind of fault a refusal with this cause points to."""
    return _MEANS[cause_of_refusal(refusal)]


def what_to_do(refusal: Exception) -> str:
    """Returns one sentence on what to check or change after a refusal with this cause."""
    return _DO[cause_of_refusal(refusal)]
