"""Opening ROOT files, local or on a server: their trees, identity and errors."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import uproot

from pipeline.formats.errors import UserError, cause_of
from pipeline.root.remote import RemoteSettings, connecting, server_of, with_retries

Result = TypeVar("Result")

# The key under which `simulate` leaves the generator's settings in the files it writes.
SIMULATION_KEY = "topocal_simulation"


@dataclass(frozen=True, slots=True)
class Access:
    """How files are reached; it changes no value.

    Attributes:
        read_rows: Clusters that are read at a time, about; it bounds memory.
        remote: For files on a server.
        limits: By server: entered while something is read from it; entered once, not nested.
    """

    read_rows: int = 131_072
    remote: RemoteSettings = field(default_factory=RemoteSettings)
    limits: Mapping[str, AbstractContextManager[Any]] = field(default_factory=dict)

    def read(self, path: str, action: Callable[[], Result]) -> Result:
        """What the action reads from a file: in the server's limit, and again where that fails."""

        def limited() -> Result:
            with self.limits.get(server_of(path) or "", nullcontext()):
                return action()

        return with_retries(limited, path, self.remote)


@contextmanager
def open_tree(path: str, tree: str, access: Access) -> Iterator[tuple[Any, Any]]:
    """The file and its tree, as uproot has them.

    Raises:
        UserError: There is no such file or tree.
        Exception: It cannot be read.
    """
    if server_of(path) is None and not Path(path).is_file():
        msg = f"{path}: no such file; check the inputs"
        raise UserError(msg)
    with (
        connecting(path, access.remote) as options,
        # uproot's caches grow from file to file (scikit-hep/uproot5#1528). A mapping, because
        # in a text a colon would part the file from an object in it.
        uproot.open({path: None}, array_cache=None, object_cache=None, **options) as file,
    ):
        yield file, file[_require_tree(path, tree, file)]


def _require_tree(path: str, tree: str, file: Any) -> str:  # noqa: ANN401 - uproot is untyped
    trees = trees_in(file)
    if tree not in trees:
        held = f"it holds {', '.join(sorted(trees))}" if trees else "it holds no tree"
        msg = f"{path}: no tree named {tree}, {held}; give its layout"
        raise UserError(msg)
    return tree


def trees_in(file: Any) -> set[str]:  # noqa: ANN401 - uproot is untyped
    """Names of all that uproot reads as a tree: TTree, what derives from it, and RNTuple."""
    names: dict[str, list[str]] = {}
    for name, kind in file.classnames(cycle=False).items():
        names.setdefault(kind, []).append(name)
    return {name for kind, each in names.items() if _is_tree(file, kind, each[0]) for name in each}


def _is_tree(file: Any, kind: str, name: str) -> bool:  # noqa: ANN401 - uproot is untyped
    """Whether a class is one of trees; of one with another name an object tells, TNtuple's say."""
    if kind in {"TTree", "ROOT::RNTuple"}:
        return True
    try:
        return isinstance(file[name], uproot.TTree)
    except Exception:  # noqa: BLE001 - uproot cannot read it, so it is no tree
        return False


@contextmanager
def reading_errors(path: str, what: str) -> Iterator[None]:
    """Any failure within as a UserError that names the file and the cause."""
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        needs = "; reading root:// needs pip install 'topocal[xrootd]'"
        msg = f"{path}: {what} ({error}){needs if path.startswith('root://') else ''}"
        raise UserError(msg) from error
    except Exception as error:
        msg = f"{path}: {what} ({cause_of(error)})"
        raise UserError(msg) from error


def fingerprint_of(file: Any, tree: str) -> str:  # noqa: ANN401 - uproot is untyped
    """Of the file's identity and the tree's own bytes, which list where all its data are."""
    key = file.key(tree)
    raw = file.file.chunk(key.fSeekKey, key.fSeekKey + key.fNbytes).raw_data
    digest = hashlib.sha256(f"{file.file.uuid} {file.file.fEND}".encode())
    digest.update(bytes(raw))
    return digest.hexdigest()[:32]


def size_of(file: Any) -> int | None:  # noqa: ANN401 - uproot is untyped
    """Bytes; None where the server does not tell."""
    size = file.file.source.num_bytes
    return None if size is None else int(size)


def simulation_of(file: Any) -> dict[str, Any] | None:  # noqa: ANN401 - uproot is untyped
    """The generator's settings in a simulated file."""
    if SIMULATION_KEY not in file:
        return None
    content: dict[str, Any] = json.loads(str(file[SIMULATION_KEY]))
    return content
