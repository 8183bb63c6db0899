"""glibc's settings hold for a whole process, so each test has one of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the settings are glibc's")

BLOCK = 64 << 20

PROGRAM = """
import ctypes, resource, sys
from labelmill import memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def touch():
    block = libc.malloc({block})
    ctypes.memset(block, 1, {block})
    libc.free(block)

def pages():
    return int(open("/proc/self/statm").read().split()[1])

for name in sys.argv[1:]:
    getattr(memory, name)()
touch()
faults, resident = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, pages()
for _ in range(5):
    touch()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
memory.return_free_memory()
print(faults, resident - pages())
"""


def faults_and_returned(*names: str) -> tuple[int, int]:
    """Pages fetched anew by five uses of one large block, and pages given back in the end."""
    command = [sys.executable, "-c", PROGRAM.format(block=BLOCK), *names]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(words[0]), int(words[1])


PAGES = BLOCK // 4096


def test_large_blocks_are_returned_at_once() -> None:
    faults, returned = faults_and_returned("return_large_blocks")
    assert faults >= 5 * PAGES
    assert returned < PAGES // 10


@pytest.mark.parametrize(
    "names", [["reuse_large_blocks"], ["return_large_blocks", "reuse_large_blocks"],
              ["reuse_large_blocks", "return_large_blocks"]]
)  # fmt: skip
def test_large_blocks_are_reused_and_then_returned(names: list[str]) -> None:
    faults, returned = faults_and_returned(*names)
    assert faults < PAGES // 10
    assert returned > 0.9 * PAGES
