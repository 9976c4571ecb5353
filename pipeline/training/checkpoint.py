"""Where a training stands, in a file beside the model that it is to give: a killed one goes on from there.

Tensors as safetensors, so that nothing is executed when the file is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pipeline.errors import StoreError
from pipeline.stores.replacing import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from pipeline.training.data import Field
    from pipeline.training.train import TrainConfig, TrainingState

__all__ = ["CHECKPOINT_FILE", "Checkpoint", "describe_training"]

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "unfinished-training.safetensors"
"""Name in the model's folder."""


def describe_training(config: TrainConfig, fields: Sequence[Field]) -> dict[str, str]:
    """Name all that the weights follow from.

    Parameters
    ----------
    config : TrainConfig
        The settings; how often they are reported on does not count.
    fields : sequence of Field
        What is learned from.

    Returns
    -------
    dict
        Configuration, data and version of torch.
    """
    digest = hashlib.sha256()
    for field in fields:
        digest.update(f"{field.name} {field.group} {field.image.shape}".encode())
        digest.update(field.image.tobytes())
        digest.update(field.mask.tobytes())
    settings = config.model_dump(mode="json", exclude={"report_every"})
    return {
        "configuration": json.dumps(settings, sort_keys=True),
        "data": digest.hexdigest(),
        "version of torch": torch.__version__,
    }


def _tensors(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    """Give everything that the next step depends on, by name, to be read or to be written into."""
    for name, network in (("network", state.network), ("averaged", state.averaged)):
        for key, tensor in network.state_dict().items():
            yield f"{name}.{key}", tensor
    for key, parameter in state.network.named_parameters():
        moments = state.optimiser.state[parameter]
        if not moments:
            # As the optimiser itself makes them at its first step.
            moments["step"] = torch.tensor(0.0)
            moments["exp_avg"], moments["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        for moment, tensor in moments.items():
            yield f"optimiser.{key}.{moment}", tensor


class Checkpoint:
    """A file that holds a training's state after some step.

    Parameters
    ----------
    path : Path
        The file; its folder is there.
    origin : dict
        What the training follows from, as `describe_training` gives it. A file of another training is not used.
    """

    def __init__(self, path: Path, origin: dict[str, str]) -> None:
        self.path = path
        self._origin = origin

    def save(self, state: TrainingState) -> None:
        """Write the state; a file of an earlier step is replaced when it is whole.

        Parameters
        ----------
        state : TrainingState
            After a whole step.

        Raises
        ------
        StoreError
            If the disk refuses.
        """
        tensors = {name: tensor.detach().contiguous() for name, tensor in _tensors(state)}
        with replacing(self.path) as beside:
            try:
                save_file(tensors, beside, metadata={**self._origin, "step": str(state.step)})
            except SafetensorError as error:
                # A full disk comes as one of these.
                raise StoreError(f"{self.path}: cannot be written ({error})") from error

    def restore(self, state: TrainingState) -> None:
        """Put a training where the file says that it stood; leave it as it is where there is none that fits.

        Parameters
        ----------
        state : TrainingState
            Of a training that has not begun; changed in place.
        """
        if not self.path.exists():
            return
        try:
            with safe_open(self.path, "pt") as file:
                noted = dict(file.metadata() or {})
                changed = [name for name, value in self._origin.items() if noted.get(name) != value]
                if changed:
                    log.warning("%s is of another training (%s differs): begun anew", self.path, ", ".join(changed))
                    return
                targets = dict(_tensors(state))
                with torch.no_grad():
                    # Copied into what is there: tensors keep how they lie in memory, and with it each rounding.
                    for name, tensor in targets.items():
                        tensor.copy_(file.get_tensor(name))
        except (SafetensorError, OSError) as error:
            raise StoreError(f"{self.path}: cannot be read ({error}); remove it to begin the training anew") from error
        state.step = int(noted["step"])
        log.info("%s: goes on after step %d", self.path, state.step)

    def remove(self) -> None:
        """Remove the file, once the model is there."""
        self.path.unlink(missing_ok=True)
