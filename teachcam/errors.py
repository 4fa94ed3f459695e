"""Every exception of ours, drawn once. Each is raised with one line that says what was wrong and what to do.

UserError                something the user can mend; commands print its text and exit with code 2
├── CameraError          no such camera, or it stopped sending
│   └── CameraTimeout    no frame within the time that was asked for
├── DatasetError         nothing to read, a label that can't name a folder, a full disk
├── ContractError        a model without a contract, or with one of another version
├── TrainingError        too few labels, weights that can't be had
├── CheckpointError      a file that is not a whole checkpoint
├── ExportError          a graph that does not answer as the trained network does
└── ModelError           a model that can't be loaded or run
UnreadableImage          a file that is not a whole image; whoever reads many leaves it out and counts it
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: its text is the one line they see."""


class CameraError(UserError):
    """No such camera, or one that stopped sending."""


class CameraTimeout(CameraError):
    """No new frame within the time that was given."""


class DatasetError(UserError):
    """A dataset that can't be read or written as asked."""


class ContractError(UserError):
    """A contract that is missing, broken, or of a version this code does not know."""


class TrainingError(UserError):
    """Training that can't start: weights that can't be had, or too little to learn from."""


class CheckpointError(UserError):
    """A file that is not a checkpoint of ours, or not a whole one."""


class ExportError(UserError):
    """A model that can't be exported, or a file that does not answer as what was trained."""


class ModelError(UserError):
    """A model that can't be loaded or run."""


class UnreadableImage(Exception):
    """A file that is not a whole picture; its text names the file and says why."""
