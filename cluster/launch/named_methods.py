"""Checks that the methods, formulas and engines that a configuration names are there, before anything is loaded."""

from actors.load import refuse_missing as refuse_missing_engines
from cluster.config.run_config import RunConfig
from learner.methods import refuse_missing as refuse_missing_of_learner
from memory_service.formulas import refuse_missing as refuse_missing_formulas


def refuse_missing_methods(config: RunConfig) -> None:
    """Raises ConfigError for the first method, engine or formula that is not there, with the nearest name."""
    refuse_missing_of_learner(config.learner)
    refuse_missing_engines(config.actors)
    if config.memory.enabled:
        refuse_missing_formulas(config.memory)
