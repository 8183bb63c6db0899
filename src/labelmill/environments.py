"""Environments of their own, for packages that cannot share ours: each a folder made once by uv.

What goes into one is pinned in `labelmill/locks/<name>.lock` (names and versions, nothing else). Its folder
is named by the digest of that list, so that another list makes another environment and an old one keeps
working; a stamp, written last, says that it is whole.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labelmill.config import nearest
from labelmill.errors import ServiceError
from labelmill.files import digest_bytes, disk_errors, write_bytes

FOLDER_VARIABLE = "LABELMILL_ENVIRONMENTS"
"""Environment variable that names another folder for environments."""

LOCKS = Path(__file__).parent / "locks"
_STAMP = ".labelmill-whole"
_LAST_LINES = 8

Say = Callable[[str], None]
"""Takes a line about progress."""


@dataclass(frozen=True)
class Environment:
    """One environment on this machine.

    Attributes:
        name: Stem of its lock file.
        folder: Where it lies.
    """

    name: str
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.script("python")

    @property
    def whole(self) -> bool:
        """Whether it was installed to the end."""
        return (self.folder / _STAMP).is_file() and self.python.exists()

    def script(self, name: str) -> Path:
        """Path of a command that it installed."""
        if sys.platform == "win32":
            return self.folder / "Scripts" / f"{name}.exe"
        return self.folder / "bin" / name

    def variables(self) -> dict[str, str]:
        """Our environment variables for a process of this environment, without what points back to ours."""
        ours = {"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT"}
        variables = {name: value for name, value in os.environ.items() if name not in ours}
        variables["PATH"] = os.pathsep.join([str(self.python.parent), os.environ.get("PATH", os.defpath)])
        return variables


def names() -> list[str]:
    """Every environment that labelmill knows how to make."""
    return sorted(path.stem for path in LOCKS.glob("*.lock"))


def root() -> Path:
    """The folder of all environments: `LABELMILL_ENVIRONMENTS`, or the user's data folder."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return data / "labelmill" / "environments"


def locate(name: str) -> Environment:
    """Where an environment is or would be; ask its `whole` which.

    Raises:
        ServiceError: labelmill knows no such environment.
    """
    if name not in names():
        raise ServiceError(f"unknown environment {name!r}", do=nearest(name, names()))
    digest = digest_bytes(_lock(name).read_bytes())
    return Environment(name, root() / f"{name}-{digest[:12]}")


def ensure_environment(name: str, say: Say = lambda line: None) -> Environment:
    """Find an environment, or make it: minutes and some gigabytes for the large ones.

    Two processes that ask at once make one: the second waits for the first. `UV_TORCH_BACKEND=cpu` asks for
    torch without CUDA, and uv's other variables for indexes and caches are honoured.

    Args:
        name: Stem of the lock file.
        say: Called with each line of the installer's progress.

    Raises:
        ServiceError: The environment is unknown, or cannot be installed.
        WorkspaceError: Its folder cannot be written.
    """
    from filelock import FileLock, Timeout

    environment = locate(name)
    if environment.whole:
        return environment
    folder = environment.folder
    with disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f"{folder.name}.lock"), thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            say(f"waiting for another process that makes the {name} environment")
            lock.acquire()
    try:
        if not environment.whole:
            _install(environment, say)
    finally:
        lock.release()
    return environment


def _lock(name: str) -> Path:
    return LOCKS / f"{name}.lock"


def _install(environment: Environment, say: Say) -> None:
    folder = environment.folder
    with disk_errors(folder.parent):
        if folder.exists():
            say(f"removing the unfinished {folder}")
            shutil.rmtree(folder)
    uv = _find_uv()
    say(f"making the {environment.name} environment in {folder}")
    _call([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], environment, say)
    requirements = ["--requirement", str(_lock(environment.name))]
    _call([uv, "pip", "install", "--python", str(environment.python), *requirements], environment, say)
    with disk_errors(folder):
        write_bytes(folder / _STAMP, _lock(environment.name).read_bytes())


def _find_uv() -> str:
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if not found:
        raise ServiceError("uv is not installed", expected="the installer uv", do="pip install uv")
    return found


def _call(command: list[str], environment: Environment, say: Say) -> None:
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment.variables(),
    ) as process:
        for line in process.stdout or ():
            last.append(line.strip())
            if not line.startswith(" + "):  # each of a hundred packages, at the end
                say(line.rstrip())
    if process.returncode:
        raise ServiceError(
            f"the {environment.name} environment cannot be installed",
            got=" / ".join(last) or f"exit status {process.returncode} of uv",
            do=f"check the network and the space in {environment.folder.parent}, and try again",
        )


def _main() -> int:
    """`python -m labelmill.environments NAME ...` makes environments ahead of their first use."""
    from labelmill.errors import LabelmillError

    for name in sys.argv[1:] or names():
        try:
            made = ensure_environment(name, lambda line: _print(f"  {line}"))
        except LabelmillError as error:
            _print(error.line)
            return error.exit_code
        _print(f"{made.name}: {made.folder}")
    return 0


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(_main())
