"""The training strategies, by their names on the command line."""

from teachcam.train.engine.strategies.auto import Auto
from teachcam.train.engine.strategies.base import Strategy
from teachcam.train.engine.strategies.finetune import FineTune
from teachcam.train.engine.strategies.gradient import GRADIENT_STRATEGIES
from teachcam.train.engine.strategies.ridge import Ridge

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (Auto(), Ridge(), FineTune(), *GRADIENT_STRATEGIES)
}
