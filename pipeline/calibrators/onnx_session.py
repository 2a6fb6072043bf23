"""Sessions of ONNX files: each opened once a process, with one thread and its checksum checked."""

import threading
from pathlib import Path

import onnxruntime

from pipeline.formats.card import require_artefact

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
    require_artefact(path, sha256)
    options = onnxruntime.SessionOptions()
    # The farm runs one process a core; without a pool of threads none spins.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
