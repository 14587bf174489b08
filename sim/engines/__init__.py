"""Flower's own ways of running the two apps, unchanged: its Ray simulation and its deployment."""

from sim.engines.contract import EngineError
from sim.engines.deployment import run_deployment
from sim.engines.ray import run_ray

__all__ = ["EngineError", "run_deployment", "run_ray"]
