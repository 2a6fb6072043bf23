"""Sessions of ONNX files: each opened once a process, with one thread and its checksum checked."""

import threading
from pathlib import Path

import onnxruntime

from pipeline.formats.errors import UserError
from pipeline.formats.files import sha256_of

_sessions: dict[tuple[Path, str], onnxruntime.InferenceSession] = {}
_sessions_lock = threading.Lock()


def open_session(path: Path, sha256: str) -> onnxruntime.InferenceSession:
    """The session of a model, opened once a process; the key holds the file's checksum.

    Raises:
        UserError: The file is missing or another one.
    """
    with _sessions_lock:  # two threads of one worker would both load it
        key = (path, sha256)
        if key not in _sessions:
            _sessions[key] = _load_session(path, sha256)
        return _sessions[key]


def _load_session(path: Path, sha256: str) -> onnxruntime.InferenceSession:
    if not path.is_file() or sha256_of(path) != sha256:
        msg = f"{path}: missing or not the file that the model card lists; train or copy it again"
        raise UserError(msg)
    options = onnxruntime.SessionOptions()
    # The farm runs one process a core; without a pool of threads none spins.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
