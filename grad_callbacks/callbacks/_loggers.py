"""Where a Trainer's loggers write to, in words."""

from __future__ import annotations

from grad_callbacks._utils.lightning import Logger, Trainer
from grad_callbacks.callbacks._wandb import is_logger


def places(trainer: Trainer) -> str:
    """Return where the Trainer logs to: each logger with its place, or that there is none."""
    return f"logs to {', '.join(map(_place, trainer.loggers))}" if trainer.loggers else "no logger"


def mlflow_store(logger: Logger) -> str:
    """Return the address of an MLflow logger's store, without secrets."""
    from grad_callbacks.tracking.secrets.masking import mask_address

    return mask_address(str(getattr(logger, "_tracking_uri", None) or "its default store"))


def _place(logger: Logger) -> str:
    if is_logger(logger, "MLFlowLogger"):
        return f"MLflow experiment {getattr(logger, '_experiment_name', None)!r} at {mlflow_store(logger)}"
    name = next(cls.__name__ for cls in type(logger).__mro__).removesuffix("Logger")
    try:
        folder = logger.log_dir or logger.save_dir
    except Exception:  # a logger of one's own may know none
        folder = None
    return f"{name} in {folder}" if folder else name
