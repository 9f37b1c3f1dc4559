"""Checkpoints: readers, our own format, strict conversion and downloads.

Reading a file never executes its content, and PyTorch is not needed. Damaged,
foreign and malicious files raise ValueError.
"""

from tapjax.checkpoints.conversion import CheckpointMismatchError
from tapjax.checkpoints.conversion import convert_arrays
from tapjax.checkpoints.conversion import invert_arrays
from tapjax.checkpoints.conversion import is_ignored
from tapjax.checkpoints.conversion import Source
from tapjax.checkpoints.download import cache_directory
from tapjax.checkpoints.download import fetch
from tapjax.checkpoints.download import WeightFile
from tapjax.checkpoints.haiku_npy import read_haiku_npy
from tapjax.checkpoints.haiku_npy import read_npy_object
from tapjax.checkpoints.haiku_npy import write_haiku_npy
from tapjax.checkpoints.native import NativeContents
from tapjax.checkpoints.native import read_native
from tapjax.checkpoints.native import write_checkpoint
from tapjax.checkpoints.pickles import load_pickle
from tapjax.checkpoints.pickles import map_pickle
from tapjax.checkpoints.pickles import refuse_placeholders
from tapjax.checkpoints.placeholders import Placeholder
from tapjax.checkpoints.reader import Checkpoint
from tapjax.checkpoints.reader import read_checkpoint
from tapjax.checkpoints.torch_training import read_torch_training
from tapjax.checkpoints.torch_training import TorchTraining
from tapjax.checkpoints.torch_zip import read_torch_checkpoint
from tapjax.checkpoints.transfer import DownloadError

__all__ = [
    'Checkpoint',
    'CheckpointMismatchError',
    'DownloadError',
    'NativeContents',
    'Placeholder',
    'Source',
    'TorchTraining',
    'WeightFile',
    'cache_directory',
    'convert_arrays',
    'fetch',
    'invert_arrays',
    'is_ignored',
    'load_pickle',
    'map_pickle',
    'read_checkpoint',
    'read_haiku_npy',
    'read_native',
    'read_npy_object',
    'read_torch_checkpoint',
    'read_torch_training',
    'refuse_placeholders',
    'write_checkpoint',
    'write_haiku_npy',
]
